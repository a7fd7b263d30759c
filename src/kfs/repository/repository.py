"""Keeps the catalog true to what is wanted and to what is on disk."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Container, Set
from dataclasses import replace
from pathlib import Path

from kfs.errors import ModelLoadError
from kfs.metrics.registry import Metrics
from kfs.metrics.servables import ModelMetrics
from kfs.repository.catalog import Catalog, Entry, Kind, VersionEntry
from kfs.repository.changes import compare, needs_reload, settle
from kfs.repository.config import Wanted, once_written
from kfs.repository.graphs import Graphs, digest
from kfs.repository.pipelines import Pipelines
from kfs.repository.schema import ConfigError
from kfs.repository.storage import NoAnswerError, PatientStorage, look_at, open_storage
from kfs.servables.model import Model
from kfs.settings import ModelSettings

_log = logging.getLogger("kfs.repository")

#: Told whenever a servable begins or ceases to be available: its name, and whether it is.
OnChange = Callable[[str, bool], None]

# A file that is being written may be read half: it is looked at again before it is called broken.
_ATTEMPTS = 3
_ATTEMPT_WAIT_S = 0.01


class Repository:
    """Loads, replaces and retires servables; one writer at a time.

    Args:
        catalog: what is kept true.
        read: reads what is wanted; raises ConfigError.
        config_path: the file that `read` reads, watched for changes; None when there is none.
        on_change: told when a servable begins or ceases to be available.
        metrics: where everything is counted; None for nowhere.
    """

    def __init__(
        self,
        catalog: Catalog,
        read: Callable[[], Wanted],
        config_path: Path | None,
        on_change: OnChange,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._reload_successful = self._metrics.series("kfs_config_last_reload_successful")
        self._catalog = catalog
        self._read = read
        self._config_path = config_path
        self._on_change = on_change
        self._pipelines = Pipelines(catalog, self._metrics)
        self._graphs = Graphs(catalog, self._metrics)
        self._wanted = Wanted()
        #: What of the file cannot be had, by name, and why.
        self._refused: dict[str, str] = {}
        self._digest = b""
        # Opened once for as long as a model is there, with its connections.
        self._storages: dict[str, PatientStorage] = {}
        self._empty: set[str] = set()
        #: The default version that was told of each name; None for none.
        self._told: dict[str, int | None] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.reload_error: str | None = None

    def load(self) -> None:
        """Read what is wanted and load it; what fails is logged and leaves the rest.

        Raises:
            ConfigError: nothing can be made of what is wanted.
        """
        wanted = once_written(self._read)
        self._wanted = replace(Wanted(), files=wanted.files)
        self._digest = self._digest_now()
        self._reload_successful.set(1)
        self._apply(wanted)

    def poll(self) -> None:
        """Look once for changes of the file and of version folders."""
        digest = self._digest_now()
        if digest != self._digest:
            wanted = self._read_again()
            self._digest = digest
            if wanted is not None:
                self._apply(wanted)
                return
        self._sync_all()
        for name in [*self._pipelines.refresh(), *self._graphs.refresh()]:
            self._tell(name)

    def look(self) -> None:
        """Poll; an error of our own is logged, and leaves everything as it is."""
        try:
            self.poll()
        except Exception:
            _log.exception("Unexpected error while looking for changes")

    def watch(self, interval_s: float) -> None:
        """Look on a thread of its own until `stop`."""
        self._thread = threading.Thread(
            target=self._watch, args=(interval_s,), name="repository", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Load nothing more, but for a version that is being loaded; from any thread."""
        self._stopping.set()

    @property
    def is_stopped(self) -> bool:
        return self._stopping.is_set()

    def close(self) -> None:
        """Stop, and unload everything, so that copies of what is in clouds are removed.

        What a call still uses is unloaded when the call ends.
        """
        self.stop()
        if self._thread is not None:
            self._thread.join()
        for name in self._catalog.snapshot:
            for version in self._available(name).values():
                version.retire()
        self._close_storages(kept=set())

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
        wanted, self._refused = settle(self._wanted, wanted, self._kinds())
        changes = compare(self._wanted.models, wanted.models)
        _log.info("Models added: %d, changed: %d, removed: %d",
                  len(changes.added), len(changes.replaced), len(changes.removed))  # fmt: skip
        self._wanted = wanted
        self._close_storages(kept={str(model.base_path) for model in wanted.models.values()})
        for name in [*wanted.models, *self._refused]:
            self._catalog.add_name(name)
        self._sync_all()
        for name in changes.removed:
            self._retire(name)
            self._catalog.set_error(name, None)
        for name, error in self._refused.items():
            self._set_error(name, error)
            self._tell(name)
        if self._stopping.is_set():
            return
        libraries = list(wanted.libraries)
        for name in self._pipelines.apply(wanted.pipelines, libraries, wanted.folder):
            self._tell(name)
        for name in self._graphs.apply(wanted.graphs):
            self._tell(name)

    def _kinds(self) -> dict[str, Kind]:
        """What every name that has ever been served stands for."""
        snapshot = self._catalog.snapshot
        return {name: version.kind for name, entry in snapshot.items()
                for version in entry.versions.values()}  # fmt: skip

    def _sync_all(self) -> None:
        models = self._wanted.models.values()
        asked: dict[str, PatientStorage] = {}  # models with one place share its storage
        for settings in models:
            with contextlib.suppress(ModelLoadError):  # which is told when its turn comes
                base_path = str(settings.base_path)
                asked[base_path] = self._storage(base_path)
        look_at(asked.values())
        for settings in models:
            self._sync(settings)

    def _sync(self, settings: ModelSettings) -> None:
        """Load the versions that are wanted and not served so, then retire the others."""
        name = settings.name
        storage = None
        try:
            storage = self._storage(str(settings.base_path))
            there = storage.find_versions()
        except NoAnswerError as error:
            self._set_error(name, f"model {name}: {error}")
            return
        except ModelLoadError as error:
            self._set_error(name, f"model {name}: {error}")
            # A cloud that cannot be reached says nothing of what is there.
            if storage is None or not storage.is_remote:
                self._retire_replaced(settings)
                self._tell(name)
            return
        done = self._served_as(settings)
        failed = dict[int, str]()
        while missing := settings.version_policy.choose(frozenset(there.keys() - failed)) - done:
            if self._stopping.is_set():
                return
            version = max(missing)
            reason = self._load(settings, version, storage, there[version])
            if reason is None:
                done.add(version)
            else:
                failed[version] = reason
        self._note(settings, there, failed)
        wanted = settings.version_policy.choose(frozenset(there.keys() - failed))
        self._retire_replaced(settings, wanted, failed)
        self._tell(name)

    def _served_as(self, settings: ModelSettings) -> set[int]:
        """The versions that are served with these very settings."""
        return {
            version
            for version, entry in self._available(settings.name).items()
            if not needs_reload(_settings_of(entry), settings)
        }

    def _retire_replaced(
        self, settings: ModelSettings, wanted: Set[int] = frozenset(), failed: Container[int] = ()
    ) -> None:
        """Retire the versions that are not wanted.

        What could not be replaced goes on as it was: a version that failed, and one of another
        place while nothing of the new place is served.
        """
        for version, entry in self._available(settings.name).items():
            goes_on = version in failed or (
                not wanted and _settings_of(entry).base_path != settings.base_path
            )
            if version not in wanted and not goes_on:
                entry.retire()

    def _storage(self, base_path: str) -> PatientStorage:
        if base_path not in self._storages:
            self._storages[base_path] = PatientStorage(base_path, open_storage(base_path))
        return self._storages[base_path]

    def _close_storages(self, *, kept: set[str]) -> None:
        for base_path in self._storages.keys() - kept:
            self._storages.pop(base_path).close()

    def _note(self, settings: ModelSettings, there: dict[int, str], failed: dict[int, str]) -> None:
        error = self._refused.get(settings.name) or (failed[max(failed)] if failed else None)
        self._set_error(settings.name, error)
        if failed:
            return
        if there:
            self._empty.discard(settings.name)
        elif settings.name not in self._empty:
            self._empty.add(settings.name)
            _log.warning("No version found for model in path: %s", settings.base_path)

    def _load(
        self, settings: ModelSettings, version: int, storage: PatientStorage, location: str
    ) -> str | None:
        """Load and publish one version; what went wrong, or None."""
        metrics = ModelMetrics(self._metrics, settings.name, version)
        entry = self._catalog.begin(settings.name, version, metrics=metrics)
        folder = None
        try:
            folder = storage.fetch(location)
            servable = Model.load(settings, version, folder.path, metrics)
        except ModelLoadError as error:
            if folder is not None:
                folder.remove()
            self._catalog.set_failed(entry, str(error))
            return f"model {settings.name}, version {version}: {error}"
        entry.on_end = folder.remove
        self._catalog.publish(settings.name, entry, servable)
        return None

    def _retire(self, name: str) -> None:
        for entry in self._available(name).values():
            entry.retire()
        self._tell(name)

    def _available(self, name: str) -> dict[int, VersionEntry]:
        versions = self._catalog.snapshot.get(name, Entry()).versions
        return {version: entry for version, entry in versions.items() if entry.is_available}

    def _set_error(self, name: str, error: str | None) -> None:
        """Keep and log an error; one that comes again at every look is logged once."""
        if self._catalog.set_error(name, error) and error is not None:
            _log.error("%s", error)

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


def _settings_of(entry: VersionEntry) -> ModelSettings:
    """What an available version of a model was loaded with."""
    assert isinstance(entry.servable, Model)
    return entry.servable.settings
