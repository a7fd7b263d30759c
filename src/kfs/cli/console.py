"""Terminal output and logs: rich on a terminal, plain lines when piped."""

from __future__ import annotations

import io
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging.handlers import WatchedFileHandler
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from kfs.servables.outline import Outline

LOG_LEVELS = {
    "TRACE": 5,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
}
_PLAIN = "[%(asctime)s.%(msecs)03d][%(threadName)s][%(name)s][%(levelname)s] %(message)s"


_JSON = {
    "asctime": "time", "levelname": "level", "name": "logger", "processName": "process",
    "threadName": "thread", "message": "message",
}  # fmt: skip


def show_any_text() -> None:
    """Escape on stdout what its encoding has no characters for, as stderr does by itself."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


class _Lossy(logging.Handler):
    """A handler that loses what it cannot write, on a full disk for instance, and says so once.

    Who logs never suffers from it.
    """

    _is_told = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # from opening the file again, which the handlers do not expect to fail
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._is_told:
            self._is_told = True
            where = getattr(self, "baseFilename", "stdout")
            with suppress(OSError):
                print(f"kfs-fast: log lines are lost, {where}: {error.strerror}", file=sys.stderr)


class _LossyStream(_Lossy, logging.StreamHandler):  # type: ignore[type-arg]  # as of 3.11
    pass


class _LossyFile(_Lossy, WatchedFileHandler):
    pass


def set_up_logging(level: str, path: Path | None = None, *, as_json: bool = False) -> None:
    """Log to stdout, and to a file as well when there is a path; to a new one if it is moved away.

    Args:
        as_json: an object a line, with a key for each part of what is logged.
    """
    logging.addLevelName(LOG_LEVELS["TRACE"], "TRACE")
    # Lines of several processes are told apart.
    is_worker = multiprocessing.current_process().name != "MainProcess"
    process = "[%(processName)s]" if is_worker else ""
    plain: logging.Formatter = logging.Formatter(process + _PLAIN, "%Y-%m-%d %H:%M:%S")
    if as_json:
        from pythonjsonlogger.json import JsonFormatter  # takes a while, and few want it

        plain = JsonFormatter(list(_JSON), style="sequence", rename_fields=_JSON)
    handlers: list[logging.Handler] = []
    if sys.stdout.isatty() and not as_json:
        handlers.append(RichHandler(console=Console(), show_path=False, omit_repeated_times=False))
        handlers[0].setFormatter(logging.Formatter("%(message)s"))
    else:
        handlers.append(_LossyStream(sys.stdout))
        handlers[0].setFormatter(plain)
    if path is not None:
        handlers.append(_LossyFile(path))
        handlers[-1].setFormatter(plain)
    root = logging.getLogger()
    root.handlers = handlers
    root.setLevel(LOG_LEVELS[level])


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table with a title; on a pipe, columns padded with blanks and no lines."""
    if sys.stdout.isatty():
        # As Text, what is in brackets (an IPv6 address, a name) is no markup.
        table = Table(title=Text(title), title_justify="left")
        for column in columns:
            table.add_column(column, overflow="fold")  # and nothing is cut off
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    print(title)
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for row in [columns, *rows]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def print_outline(outline: Outline) -> None:
    """A tree; on a pipe, lines indented by two blanks."""
    if sys.stdout.isatty():
        Console().print(_branch(outline))
        return
    for depth, text in outline.lines():
        print("  " * depth + text)


def _branch(outline: Outline) -> Tree:
    tree = Tree(Text(outline.text))
    tree.children = [_branch(part) for part in outline.parts]
    return tree


#: Seconds between lines of progress on a pipe.
_PROGRESS_S = 5.0


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """A function that tells on stderr what is done and which share of it, as often as one likes.

    On a terminal it is a bar that goes when all is done, on a pipe a line every few seconds.
    """
    if not sys.stderr.isatty():
        yield _plain_progress()
        return
    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=1.0)
        yield lambda text, share: shown.update(task, description=escape(text), completed=share)


def _plain_progress() -> Callable[[str, float], None]:
    last = time.monotonic()

    def show(text: str, share: float) -> None:
        nonlocal last
        if time.monotonic() - last >= _PROGRESS_S:
            last = time.monotonic()
            print(f"{text} ({share:.0%})", file=sys.stderr, flush=True)

    return show


def bar(share: float, width: int) -> str:
    """A bar that fills its share of the width, padded with blanks."""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return ("#" * round(share * width)).ljust(width)
    eighths = round(share * width * 8)
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()).ljust(width)
