"""One version of a servable: its states, and the leases that keep it until they end."""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import TracebackType

from kfs import errors
from kfs.errors import Status
from kfs.metrics.servables import ServableMetrics
from kfs.repository.unloads import Unloads
from kfs.servables.base import Servable

_log = logging.getLogger("kfs.repository")


class State(enum.Enum):
    """Where a version is in its life; logged as OpenVINO Model Server does, for its readers."""

    LOADING = enum.auto()
    AVAILABLE = enum.auto()
    UNLOADING = enum.auto()
    END = enum.auto()


@dataclass(frozen=True)
class Kind:
    """What a name stands for: models have versions, the others ignore what a client says of them.

    Attributes:
        word: what it is called in messages.
        logged_as: what OVMS calls it in its log, where it has no versions.
        load_wait_s: how long a call waits for one that is being loaded.
    """

    word: str
    logged_as: str
    has_versions: bool
    load_wait_s: float
    not_loaded_yet: Status
    retired: Status


MODEL = Kind(
    "model", "", True, 10.0, errors.MODEL_VERSION_NOT_LOADED_YET, errors.MODEL_VERSION_RETIRED
)
PIPELINE = Kind(
    "pipeline", "Pipeline", False, 0.5, errors.PIPELINE_NOT_LOADED_YET, errors.PIPELINE_RETIRED
)
GRAPH = Kind("graph", "Mediapipe", False, 0.5, errors.GRAPH_NOT_LOADED_YET, errors.GRAPH_RETIRED)


def _nothing() -> None:
    pass


class VersionEntry:
    """One version of a servable: its state, and the leases on it."""

    def __init__(
        self,
        name: str,
        version: int,
        kind: Kind,
        metrics: ServableMetrics | None,
        unloads: Unloads,
    ) -> None:
        self.name = name
        self.version = version
        self.kind = kind
        self.metrics = metrics or ServableMetrics()
        self.error: str | None = None
        self.enter(State.LOADING)
        self.servable: Servable | None = None
        # A set, because adding and discarding are atomic: counting would need a lock.
        self.leases: set[Lease] = set()
        #: Called once, after the servable was unloaded.
        self.on_end: Callable[[], None] = _nothing
        self._unloads = unloads
        self._ending = threading.Lock()

    def enter(self, state: State) -> None:
        """Go over to another state, or tell that loading failed."""
        self.state = state
        # What cannot be loaded is tried again at every look.
        level = logging.DEBUG if state is State.LOADING else logging.INFO
        _log.log(
            level,
            'STATUS CHANGE: Version %d of model %s status change. New status: ( "state": "%s", '
            '"error_code": "%s" )',
            self.version, self.name, state.name, "OK" if self.error is None else "UNKNOWN",
        )  # fmt: skip
        if state is State.AVAILABLE and not self.kind.has_versions:
            _log.info(
                "%s: %s state changed to: AVAILABLE after handling: ValidationPassedEvent:",
                self.kind.logged_as,
                self.name,
            )

    @property
    def is_available(self) -> bool:
        return self.state is State.AVAILABLE

    def try_lease(self) -> Lease | None:
        """A lease on the servable; None when it is not available."""
        servable = self.servable
        if servable is None or not self.is_available:
            return None
        lease = Lease(self, servable)
        self.leases.add(lease)
        if not self.is_available:  # retired between the two looks
            lease.release()
            return None
        return lease

    def retire(self) -> None:
        """Let no new lease begin; when the last one has ended, the servable is unloaded."""
        if self.kind.has_versions:
            _log.info("Will unload model: %s; version: %d ...", self.name, self.version)
        self.error = None  # of what is not wanted, it does not matter why it could not be loaded
        self.enter(State.UNLOADING)
        self.unload_if_idle()

    def unload_if_idle(self) -> None:
        """Begin to unload what is retired and not in use any more."""
        with self._ending:
            if self.state is not State.UNLOADING or self.leases:
                return
            servable, self.servable = self.servable, None
            self.state = State.END
        self.enter(State.END)
        if servable is not None:
            self._unloads.begin(partial(self._unload, servable))

    def _unload(self, servable: Servable) -> None:
        try:
            servable.unload()
        finally:
            on_end, self.on_end = self.on_end, _nothing  # entries are kept for what they say
            on_end()


class Lease:
    """The right to use a servable until returned; a context manager that gives the servable."""

    __slots__ = ("_entry", "servable")

    def __init__(self, entry: VersionEntry, servable: Servable) -> None:
        self._entry = entry
        self.servable = servable

    def release(self) -> None:
        self._entry.leases.discard(self)
        if self._entry.state is State.UNLOADING:
            self._entry.unload_if_idle()

    def __enter__(self) -> Servable:
        return self.servable

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


@dataclass(frozen=True)
class Entry:
    """All versions of one name.

    Attributes:
        versions: by number.
        error: why the newest try at it failed; None when nothing is wrong.
    """

    versions: Mapping[int, VersionEntry] = field(default_factory=dict)
    error: str | None = None

    @cached_property
    def only(self) -> VersionEntry | None:
        """The entry of what has no versions; None for models."""
        entry = self.versions.get(1)
        return None if entry is None or entry.kind.has_versions else entry

    def find(self, version: int | None) -> VersionEntry | None:
        """The version, the default one for None; of what has no versions, what there is."""
        if self.only is not None:
            return self.only
        return self.default() if version is None else self.versions.get(version)

    def default(self) -> VersionEntry | None:
        """The highest version that is available."""
        highest: VersionEntry | None = None
        for entry in self.versions.values():
            if entry.is_available and (highest is None or entry.version > highest.version):
                highest = entry
        return highest
