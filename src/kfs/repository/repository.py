"""Keeps the catalog true to what is wanted and to what is on disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kfs.metrics.registry import Metrics
from kfs.repository.catalog import Catalog
from kfs.repository.changes import compare, settle
from kfs.repository.config import Wanted, once_written
from kfs.repository.graphs import Graphs, digest
from kfs.repository.models import Models
from kfs.repository.pipelines import Pipelines
from kfs.repository.schema import ConfigError
from kfs.repository.versions import GRAPH, PIPELINE, Entry, Kind

_log = logging.getLogger("kfs.repository")

#: Told whenever a servable begins or ceases to be available: its name, and whether it is.
OnChange = Callable[[str, bool], None]

# A file that is being written may be read half: it is looked at again before it is called broken.
_ATTEMPTS = 3
_ATTEMPT_WAIT_S = 0.01

# What a load gets to finish when the server ends, after its running calls had their time, and what
# unloading gets at least.
_END_S = 5.0


class Repository:
    """Loads, replaces and retires servables; one writer at a time.

    Args:
        catalog: what is kept true.
        read: reads what is wanted; raises ConfigError.
        config_path: the file that `read` reads, watched for changes; None when there is none.
        on_change: told when a servable begins or ceases to be available.
        metrics: where everything is counted; None for nowhere.
        max_calls: how many calls of a pipeline or a graph may be under way, streams aside; None
            for any number.
    """

    def __init__(
        self,
        catalog: Catalog,
        read: Callable[[], Wanted],
        config_path: Path | None,
        on_change: OnChange,
        metrics: Metrics | None = None,
        max_calls: int | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._reload_successful = self._metrics.series("kfs_config_last_reload_successful")
        self._catalog = catalog
        self._read = read
        self._config_path = config_path
        self._on_change = on_change
        self._stopping = threading.Event()
        self._models = Models(catalog, self._metrics, self._stopping.is_set)
        self._pipelines = Pipelines(catalog, self._metrics, max_calls)
        self._graphs = Graphs(catalog, self._metrics, max_calls)
        self._wanted = Wanted()
        self._digest = b""
        #: The default version that was told of each name; None for none.
        self._told: dict[str, int | None] = {}
        #: Held by who loads, and chooses what is to be unloaded.
        self._at_work = threading.Lock()
        self.reload_error: str | None = None

    def load(self) -> None:
        """Read what is wanted and load it; what fails is logged and leaves the rest.

        Raises:
            ConfigError: nothing can be made of what is wanted.
        """
        with self._at_work:
            wanted = once_written(self._read)
            self._wanted = replace(Wanted(), files=wanted.files)
            self._digest = self._digest_now()
            self._reload_successful.set(1)
            self._apply(wanted)

    def poll(self) -> None:
        """Look once for changes of the file and of version folders."""
        with self._at_work:
            if not self.is_stopped:
                self._poll()

    def _poll(self) -> None:
        digest = self._digest_now()
        if digest != self._digest:
            wanted = self._read_again()
            self._digest = digest
            if wanted is not None:
                self._apply(wanted)
                return
        for name in self._models.refresh():
            self._tell(name)
        for name in [*self._pipelines.refresh(), *self._graphs.refresh()]:
            self._tell(name)

    def look(self) -> None:
        """Poll; an error of our own is logged, and leaves everything as it is."""
        try:
            self.poll()
        except BaseException:  # whatever it is: without its thread, nothing is reloaded any more
            _log.exception("Unexpected error while looking for changes")

    def watch(self, interval_s: float) -> None:
        """Look on a thread of its own until `stop`."""
        threading.Thread(
            target=self._watch, args=(interval_s,), name="repository", daemon=True
        ).start()

    def stop(self) -> None:
        """Load nothing more, but for a version that is being loaded; from any thread."""
        self._stopping.set()

    @property
    def is_stopped(self) -> bool:
        return self._stopping.is_set()

    def close(self, grace_s: float = 0) -> bool:
        """Stop, and unload everything, so that copies of what is in clouds are removed.

        What a call still uses is unloaded when the call ends.

        Args:
            grace_s: seconds that unloading may take, and `_END_S` more.

        Returns:
            Whether it is done: a load that hangs holds everything as it is.
        """
        self.stop()
        if not self._at_work.acquire(timeout=_END_S):
            _log.warning("What is being loaded is left: it takes longer than %g s", _END_S)
            return False
        try:
            for name in self._catalog.snapshot:
                for version in self._catalog.available(name).values():
                    version.retire()
            is_done = self._catalog.unloads.wait(grace_s + _END_S)
            self._models.close()
        finally:
            self._at_work.release()
        if not is_done:
            _log.warning("What is being unloaded is left: it takes longer than %g s",
                         grace_s + _END_S)  # fmt: skip
        return is_done

    def _watch(self, interval_s: float) -> None:
        while not self._stopping.wait(interval_s):
            self.look()

    def _digest_now(self) -> bytes:
        files = [] if self._config_path is None else [self._config_path]
        return b"".join(digest(path) for path in [*files, *self._wanted.files])

    def _read_again(self) -> Wanted | None:
        """What the changed file wants; None when it is broken, so that nothing changes."""
        for attempt in range(_ATTEMPTS):
            try:
                wanted = self._read()
            except ConfigError as error:
                self.reload_error = str(error)
                if attempt + 1 < _ATTEMPTS:
                    time.sleep(_ATTEMPT_WAIT_S)
            else:
                self.reload_error = None
                self._reload_successful.set(1)
                return wanted
        self._reload_successful.set(0)
        _log.error("Nothing is changed, the new configuration is broken: %s", self.reload_error)
        return None

    def _apply(self, wanted: Wanted) -> None:
        wanted, refused = settle(self._wanted, wanted, self._kinds())
        changes = compare(self._wanted.models, wanted.models)
        _log.info("Models added: %d, changed: %d, removed: %d",
                  len(changes.added), len(changes.replaced), len(changes.removed))  # fmt: skip
        self._wanted = wanted
        for name in [*wanted.models, *refused]:
            self._catalog.add_name(name)
        for kind, names in ((PIPELINE, wanted.pipelines), (GRAPH, wanted.graphs)):
            for name in names:
                self._catalog.announce(name, kind)
        for name in self._models.apply(wanted.models, refused):
            self._tell(name)
        if self._stopping.is_set():
            return
        if wanted.libraries is not None:  # else those of before are used
            self._pipelines.use(wanted.libraries, wanted.folder)
        for name in self._pipelines.apply(wanted.pipelines):
            self._tell(name)
        for name in self._graphs.apply(wanted.graphs):
            self._tell(name)
        # Of a name that was something else, which is retired by now.
        for name, error in refused.items():
            self._catalog.set_error(name, error)
            self._tell(name)

    def _kinds(self) -> dict[str, Kind]:
        """What every name that has ever been served stands for."""
        snapshot = self._catalog.snapshot
        return {name: version.kind for name, entry in snapshot.items()
                for version in entry.versions.values()}  # fmt: skip

    def _tell(self, name: str) -> None:
        """Tell of a default version that has changed."""
        default = self._catalog.snapshot.get(name, Entry()).default()
        version = None if default is None else default.version
        is_new, told = name not in self._told, self._told.get(name)
        self._told[name] = version
        if default is not None and version != told and default.kind.has_versions:
            _log.info("Updated default version for model: %s, to: %d", name, version)
        if is_new or (version is None) != (told is None):
            self._on_change(name, version is not None)
