"""What is being served: one immutable snapshot, looked up without a lock."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from kfs import errors
from kfs.errors import ServingError, Status
from kfs.metrics.servables import ServableMetrics
from kfs.repository.folders import MAX_VERSION
from kfs.repository.unloads import Unloads
from kfs.repository.versions import MODEL, Entry, Kind, Lease, State, VersionEntry
from kfs.servables.base import CallContext, Servable

_log = logging.getLogger("kfs.repository")

# How often a call looks that waits for a version.
_LOOK_S = 0.05

_VERSION_TEXT = re.compile(r"-?[0-9]+")

# So many versions of a name that have ended are told from those that never were.
_MAX_ENDED = 100


def parse_version(text: str) -> int | None:
    """The number a client asks for; None for the default version.

    Grammar: an optional minus and digits, without leading zeros, within 64 bits.

    Raises:
        ServingError: INVALID_ARGUMENT, the text is nothing of the kind.
    """
    if not text:
        return None
    if not _VERSION_TEXT.fullmatch(text) or text != str(_bounded(text)):
        raise ServingError(
            errors.INVALID_VERSION_FORMAT,
            f"Expected: a number such as 1, or nothing for the default; Actual: {text}",
        )
    return int(text)


def _bounded(text: str) -> int | None:
    if len(text) > 20:
        return None
    number = int(text)
    return number if -MAX_VERSION - 1 <= number <= MAX_VERSION else None


class Catalog:
    """Names and versions to servables.

    `snapshot` is replaced as a whole by one writer at a time, and never changed in place, so
    readers need no lock: a lease is taken, then the state is looked at once more, and whoever
    unloads sets the state first and waits for the leases after.
    """

    def __init__(self) -> None:
        self.snapshot: Mapping[str, Entry] = MappingProxyType({})
        self._write = threading.Lock()
        #: What is not served any more, as long as it takes to unload.
        self.unloads = Unloads()

    def add_name(self, name: str) -> None:
        """Make a name known, whatever becomes of its versions."""
        with self._write:
            if name not in self.snapshot:
                self.snapshot = MappingProxyType({**self.snapshot, name: Entry()})

    def announce(self, name: str, kind: Kind) -> None:
        """Make a name without versions known: it is to be loaded, when its turn comes."""
        if not self.left(name):
            self.begin(name, 1, kind)

    def begin(
        self,
        name: str,
        version: int,
        kind: Kind = MODEL,
        metrics: ServableMetrics | None = None,
    ) -> VersionEntry:
        """A new entry in state LOADING.

        It is to be seen at once unless the version is being served: then the old one stays until
        `publish`.
        """
        entry = VersionEntry(name, version, kind, metrics, self.unloads)
        found = self.snapshot.get(name, Entry()).versions.get(version)
        if found is None or not found.is_available:
            self._put(name, entry)
        return entry

    def publish(self, name: str, entry: VersionEntry, servable: Servable) -> None:
        """From LOADING to AVAILABLE; what it replaces is retired after the swap."""
        entry.servable = servable
        entry.error = None
        entry.enter(State.AVAILABLE)
        replaced = self.snapshot.get(name, Entry()).versions.get(entry.version)
        self._put(name, entry)
        if replaced is not None and replaced is not entry:
            replaced.retire()

    def _put(self, name: str, entry: VersionEntry) -> None:
        with self._write:
            before = self.snapshot.get(name, Entry())
            versions = {**before.versions, entry.version: entry}
            ended = [each for each in versions.values() if each.state is State.END]
            for each in ended[:-_MAX_ENDED]:
                del versions[each.version]
                each.metrics.forget()
            changed = replace(before, versions=MappingProxyType(versions))
            self.snapshot = MappingProxyType({**self.snapshot, name: changed})

    def set_error(self, name: str, error: str | None) -> None:
        """Keep why a name is not served as it should be; what comes again is logged once."""
        with self._write:
            before = self.snapshot.get(name, Entry())
            if before.error == error:
                return
            changed = replace(before, error=error)
            self.snapshot = MappingProxyType({**self.snapshot, name: changed})
        if error is not None:
            _log.error("%s", error)

    def available(self, name: str) -> dict[int, VersionEntry]:
        """The versions that can be used now."""
        versions = self.snapshot.get(name, Entry()).versions
        return {version: entry for version, entry in versions.items() if entry.is_available}

    def left(self, name: str) -> dict[int, VersionEntry]:
        """The versions that are not retired yet, also those that could not be loaded."""
        versions = self.snapshot.get(name, Entry()).versions
        over = (State.UNLOADING, State.END)
        return {version: entry for version, entry in versions.items() if entry.state not in over}

    def retire(self, name: str) -> None:
        """Retire all of a name that is not wanted any more, and with it why it was not served."""
        for entry in self.left(name).values():
            entry.retire()
        self.set_error(name, None)

    def entry(self, name: str) -> Entry:
        """
        Raises:
            ServingError: NOT_FOUND, the name is not known.
        """
        entry = self.snapshot.get(name)
        if entry is None:
            raise ServingError(errors.MODEL_NAME_MISSING, name)
        return entry

    def find(self, name: str, version_text: str) -> VersionEntry:
        """The version that metadata and readiness are asked of, in whatever state it is.

        Raises:
            ServingError: NOT_FOUND or INVALID_ARGUMENT; the name is looked at first.
        """
        has_versions = self.entry(name).only is None
        version = parse_version(version_text) if has_versions else None
        found = self._look(name, version)
        if found is None:
            raise _version_missing(name, version)
        return found

    def find_available(self, name: str, version_text: str) -> tuple[VersionEntry, Servable | None]:
        """The same, with its servable unless it is not available at the moment.

        Raises:
            ServingError: as `find`.
        """
        while True:
            found = self.find(name, version_text)
            servable = found.servable
            if servable is not None and found.is_available:
                return found, servable
            if self.find(name, version_text) is found:
                return found, None

    def _look(self, name: str, version: int | None) -> VersionEntry | None:
        """The version of a name, the default one for None, as it is now.

        A version is retired when its successor is in the snapshot: who sees none that is
        available, in a snapshot that is not the newest, looks again.
        """
        while True:
            entry = self.entry(name)
            found = entry.find(version)
            if found is not None and found.is_available:
                return found
            if self.snapshot.get(name) is entry:
                return found

    def lease(self, name: str, version_text: str, call: CallContext) -> Lease:
        """The servable that an inference is asked of, waiting a while if it is being loaded.

        Version 0 is the default version here; the version is looked at before the name.

        Raises:
            ServingError: INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE, or the call ended.
        """
        version = parse_version(version_text) or None
        began = time.monotonic()
        while True:
            found = self._wanted(name, version)
            lease = found.try_lease()
            if lease is not None:
                return lease
            if self._wanted(name, version) is not found:
                continue  # another took its place since it was looked up
            _refuse_unless_loading(found, name)
            if time.monotonic() >= began + found.kind.load_wait_s:
                raise _not_available(found.kind.not_loaded_yet, name, found)
            call.check()
            time.sleep(_LOOK_S)

    def lease_for_stream(self, name: str, version_text: str, call: CallContext) -> Lease:
        """The same for a stream, whose first version text counts for models alone."""
        entry = self.snapshot.get(name)
        has_versions = entry is None or entry.only is None
        return self.lease(name, version_text if has_versions else "", call)

    def _wanted(self, name: str, version: int | None) -> VersionEntry:
        """What an inference is asked of now; a default that is only being loaded counts."""
        found = self._look(name, version) or _loading(self.entry(name), version)
        if found is None:
            raise _version_missing(name, version)
        return found

    def fail(self, name: str, entry: VersionEntry, error: str) -> None:
        """Loading failed, and what was there before cannot go on either."""
        entry.error = error
        replaced = self.snapshot.get(name, Entry()).versions.get(entry.version)
        self._put(name, entry)
        if replaced is not None and replaced is not entry and replaced.is_available:
            replaced.retire()

    def set_failed(self, entry: VersionEntry, error: str) -> None:
        """Loading failed; the entry stays in state LOADING, as clients of OVMS know it."""
        entry.error = error
        entry.enter(State.LOADING)


def _loading(entry: Entry, version: int | None) -> VersionEntry | None:
    """The newest one that is being loaded, for a call that names none."""
    if version is not None:
        return None
    loading = [
        version
        for version in entry.versions.values()
        if version.state is State.LOADING and version.error is None
    ]
    return max(loading, key=lambda version: version.version, default=None)


def _refuse_unless_loading(entry: VersionEntry, name: str) -> None:
    if entry.state in (State.UNLOADING, State.END):
        raise _not_available(entry.kind.retired, name, entry)
    if entry.error is not None:
        raise _not_available(entry.kind.not_loaded_yet, name, entry)


def _version_missing(name: str, version: int | None) -> ServingError:
    wanted = "no version is available" if version is None else f"version {version}"
    return ServingError(errors.MODEL_VERSION_MISSING, f"{name}: {wanted}")


def _not_available(status: Status, name: str, entry: VersionEntry) -> ServingError:
    return ServingError(
        status, f"{name}: version {entry.version}" if entry.kind.has_versions else name
    )


def available_servable(entry: VersionEntry, name: str) -> Servable:
    """The servable of an entry, without waiting.

    Raises:
        ServingError: UNAVAILABLE while it loads, NOT_FOUND when it is retired.
    """
    servable = entry.servable
    if entry.is_available and servable is not None:
        return servable
    _refuse_unless_loading(entry, name)
    raise _not_available(entry.kind.not_loaded_yet, name, entry)
