"""What was measured, and its form in a file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kfs.cli.bench.load import Tally, n_processes

#: Latencies are kept as their quantiles in steps of a thousandth, the least and the most included.
_STEPS = 1000
PERCENTILES = (50, 90, 95, 99)


class NoResultsError(ValueError):
    """The file is none that `kfs-fast bench --json` wrote."""


@dataclass(frozen=True)
class Level:
    """The figures at one number of concurrent clients.

    Attributes:
        concurrency: connections, each with one request under way.
        processes: client processes.
        calls: that succeeded.
        errors: calls that failed, by the name of their status.
        first_error: status and text of the first.
        rate_per_s: calls that succeeded per second.
        client_cpus: cores that the clients kept busy.
        latency_us: percentiles by name (`p50`), `mean`, `min` and `max`; empty without calls.
        permille_us: latencies at 0, 0.1, 0.2 ... 100 %; empty without calls.
    """

    concurrency: int
    processes: int
    calls: int
    errors: dict[str, int]
    first_error: str
    rate_per_s: float
    client_cpus: float
    latency_us: dict[str, float]
    permille_us: list[float]

    @classmethod
    def of(cls, tally: Tally, concurrency: int, duration_s: float) -> Level:
        """The figures of a tally."""
        latency_us, permille_us = _summary(tally)
        return cls(
            concurrency=concurrency,
            processes=n_processes(concurrency),
            calls=len(tally.latencies_us),
            errors=dict(tally.errors),
            first_error=tally.first_error,
            rate_per_s=round(tally.rate_per_s, 2),
            client_cpus=round(tally.cpu_s / duration_s, 3),
            latency_us=latency_us,
            permille_us=permille_us,
        )

    @property
    def n_errors(self) -> int:
        return sum(self.errors.values())


def _summary(tally: Tally) -> tuple[dict[str, float], list[float]]:
    import numpy as np

    if not tally.latencies_us:
        return {}, []
    latencies = np.frombuffer(tally.latencies_us)
    permille = np.quantile(latencies, np.linspace(0, 1, _STEPS + 1)).round(1).tolist()
    summary = {f"p{percentile}": permille[percentile * 10] for percentile in PERCENTILES}
    summary["mean"] = round(float(latencies.mean()), 1)
    return {**summary, "min": permille[0], "max": permille[-1]}, permille


@dataclass(frozen=True)
class Run:
    """One run of the command.

    Attributes:
        model: the servable's name.
        url: the server's address.
        server: its name and version; empty where it does not say.
        mode: `raw` or `contents`.
        inputs: what is sent: `name DATATYPE [shape]` of each.
        request_nbytes: size of the serialized request.
        duration_s: of the measurement at each level.
        levels: in the order measured.
        when: local time of its end, ISO 8601.
        client: versions and machine of the clients.
    """

    model: str
    url: str
    server: str
    mode: str
    inputs: list[str]
    request_nbytes: int
    duration_s: float
    levels: list[Level]
    when: str
    client: Mapping[str, str | int]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read what `save` wrote.

        Raises:
            NoResultsError: it is something else.
        """
        try:
            document = json.loads(path.read_text())
            levels = [_known(Level, level) for level in document["levels"]]
            run: Run = _known(cls, {**document, "levels": levels})
        except (ValueError, KeyError, TypeError):
            raise NoResultsError(f"{path} holds no results of kfs-fast bench") from None
        return run


def _known(kind: Any, values: dict[str, Any]) -> Any:
    """An object of the class's own fields: later versions may write more."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def machine() -> dict[str, str | int]:
    """Versions and hardware on this side, for a reader of the figures."""
    return {
        "kfs-fast": version("kfs-fast"),
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def now() -> str:
    """Local time, to the second."""
    return datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")
