"""The families that are offered, and their series in Prometheus' text format."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol, cast

from prometheus_client import CollectorRegistry, Metric, disable_created_metrics, generate_latest
from prometheus_client.metrics import Counter, Gauge, Histogram, MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from kfs.metrics.families import BUCKETS_US, FAMILIES, Family
from kfs.settings import SHARED_METRICS_VARIABLE

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# The library ends the name of every counter with _total, OpenVINO Model Server that of none.
_COUNTER = re.compile(rb"^((?:# HELP |# TYPE )?ovms_\w+)_total\b", re.MULTILINE)
# A series without a version has no such label there; with the library, it has an empty one, which
# is the same to Prometheus. It is the last label, and no value holds a quote as it is.
_NO_VERSION = b',version=""}'


class Series(Protocol):
    """One counter, gauge or histogram with all its labels; safe to use from any thread."""

    def inc(self, amount: float = 1) -> None: ...

    def dec(self, amount: float = 1) -> None: ...

    def set(self, value: float) -> None: ...

    def observe(self, amount: float) -> None: ...


class _NotOffered:
    """Stands for every series of a family that is not offered."""

    def inc(self, amount: float = 1) -> None:
        pass

    def dec(self, amount: float = 1) -> None:
        pass

    def set(self, value: float) -> None:
        pass

    def observe(self, amount: float) -> None:
        pass


_NOT_OFFERED = _NotOffered()


class Metrics:
    """The metrics of one server.

    Args:
        names: the families to offer; of all others, nothing is counted.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.is_enabled = bool(names)
        self._registry = CollectorRegistry()
        self._families = {name: self._make(FAMILIES[name]) for name in sorted(names)}

    def _make(self, family: Family) -> MetricWrapperBase:
        if family.kind == "histogram":
            return Histogram(
                family.name, family.text, family.labels, registry=self._registry, buckets=BUCKETS_US
            )
        if family.kind == "counter":
            return Counter(family.name, family.text, family.labels, registry=self._registry)
        return Gauge(
            family.name,
            family.text,
            family.labels,
            registry=self._registry,
            multiprocess_mode="livesum" if family.labels else "livemin",
        )

    def series(self, family: str, **labels: str) -> Series:
        """The series with these labels; made at its first mention, with the value 0."""
        found = self._families.get(family)
        if found is None:
            return _NOT_OFFERED
        return cast(Series, found.labels(**labels) if labels else found)

    def forget(self, **labels: str) -> None:
        """Drop every series with these labels, whatever others it has.

        Processes that count together keep theirs: the library has no way to drop those.
        """
        if SHARED_METRICS_VARIABLE in os.environ:
            return
        for name, family in self._families.items():
            if labels.keys() <= set(FAMILIES[name].labels):
                family.remove_by_labels(labels)

    def expose(self) -> bytes:
        """Every series, as `CONTENT_TYPE` says."""
        return _expose(self._registry)


class _SharedMetrics(MultiProcessCollector):
    """The library's, which takes no file that is empty: a process has only just made it.

    It stays so if the process is killed at that moment.
    """

    def __init__(self, registry: CollectorRegistry, folder: str) -> None:
        self._folder = Path(folder)
        super().__init__(registry, path=folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in self._folder.glob("*.db") if _has_begun(file)]
        return cast(Iterable[Metric], self.merge(files))  # type: ignore[no-untyped-call]


def _has_begun(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # that of a process that has just ended
        return False


def expose_shared(folder: str) -> bytes:
    """The series of all processes that count in `folder`: sums, of gauges over those that live."""
    registry = CollectorRegistry()
    _SharedMetrics(registry, folder)
    return _expose(registry)


def forget_process(pid: int | None) -> None:
    """Take the gauges of a process that has ended out of those of all."""
    if SHARED_METRICS_VARIABLE in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _expose(registry: CollectorRegistry) -> bytes:
    text = _COUNTER.sub(rb"\1", generate_latest(registry))
    return text.replace(_NO_VERSION, b"}")
