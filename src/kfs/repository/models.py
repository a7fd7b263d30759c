"""Models of a repository: the versions that are wanted of those that are there."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Set

from kfs.errors import ModelLoadError
from kfs.metrics.registry import Metrics
from kfs.metrics.servables import ModelMetrics
from kfs.repository.catalog import Catalog
from kfs.repository.changes import needs_reload
from kfs.repository.storage import NoAnswerError, PatientStorage, look_at, open_storage
from kfs.repository.versions import VersionEntry
from kfs.servables.model import Model
from kfs.settings import ModelSettings

_log = logging.getLogger("kfs.repository")


class Models:
    """Keeps the models of a catalog true to their settings and to their folders.

    Args:
        catalog: what is kept true.
        metrics: where everything is counted.
        is_stopped: whether nothing more is to be loaded.
    """

    def __init__(self, catalog: Catalog, metrics: Metrics, is_stopped: Callable[[], bool]) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._is_stopped = is_stopped
        self._settings: Mapping[str, ModelSettings] = {}
        self._refused: Mapping[str, str] = {}
        # Opened once for as long as a model is there, with its connections.
        self._storages: dict[str, PatientStorage] = {}
        #: Why nothing is served of a name though nothing failed, as it was logged.
        self._empty: dict[str, str] = {}

    def apply(
        self, settings: Mapping[str, ModelSettings], refused: Mapping[str, str]
    ) -> Iterator[str]:
        """Load what is new or changed, then retire what is gone.

        Args:
            refused: what of the file cannot be had, by name, and why.

        Returns:
            The names whose availability may have changed, each as soon as it has.
        """
        gone = [name for name in self._settings if name not in settings]
        known = {*self._settings, *settings, *refused}
        gone += [name for name in self._refused if name not in known]
        self._settings, self._refused = settings, refused
        self._close_storages(kept={str(model.base_path) for model in settings.values()})
        yield from self.refresh()
        for name in gone:
            self._catalog.retire(name)
            yield name

    def refresh(self) -> Iterator[str]:
        """Look for new versions and for those that are gone; gives names as `apply` does."""
        models = self._settings.values()
        asked: dict[str, PatientStorage] = {}  # models with one place share its storage
        for settings in models:
            with contextlib.suppress(ModelLoadError):  # which is told when its turn comes
                base_path = str(settings.base_path)
                asked[base_path] = self._storage(base_path)
        look_at(asked.values())
        for settings in models:
            yield from self._sync(settings)

    def close(self) -> None:
        """Let go of the storages, with their connections."""
        self._close_storages(kept=set())

    def _sync(self, settings: ModelSettings) -> Iterator[str]:
        """Load the versions that are wanted and not served so, then retire the others."""
        name = settings.name
        storage = None
        try:
            storage = self._storage(str(settings.base_path))
            there = storage.find_versions()
        except NoAnswerError as error:
            self._catalog.set_error(name, f"model {name}: {error}")
            return
        except ModelLoadError as error:
            self._catalog.set_error(name, f"model {name}: {error}")
            # A cloud that cannot be reached says nothing of what is there.
            if storage is None or not storage.is_remote:
                self._retire_replaced(settings)
                yield name
            return
        done = self._served_as(settings)
        failed = dict[int, str]()
        while missing := settings.version_policy.choose(frozenset(there.keys() - failed)) - done:
            if self._is_stopped():
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
        yield name

    def _served_as(self, settings: ModelSettings) -> set[int]:
        """The versions that are served with these very settings."""
        return {
            version
            for version, entry in self._catalog.available(settings.name).items()
            if not needs_reload(_settings_of(entry), settings)
        }

    def _retire_replaced(
        self, settings: ModelSettings, wanted: Set[int] = frozenset(), failed: Container[int] = ()
    ) -> None:
        """Retire the versions that are not wanted, also those that had failed.

        What could not be replaced goes on as it was: a version that failed, and one of another
        place while nothing of the new place is served.
        """
        for version, entry in self._catalog.left(settings.name).items():
            goes_on = version in failed or (
                not wanted
                and entry.is_available
                and _settings_of(entry).base_path != settings.base_path
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
        self._catalog.set_error(settings.name, error)
        if failed:
            return
        reason = _why_empty(settings, there)
        if reason and self._empty.get(settings.name) != reason:
            _log.warning("%s", reason)
        self._empty[settings.name] = reason

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
        except Exception as error:
            if folder is not None:
                folder.remove()
            told = str(error)
            if not isinstance(error, ModelLoadError):  # whatever it is, it is of this model alone
                told = f"{type(error).__name__}: {told.splitlines()[0] if told else ''}"
                _log.debug("Unexpected error in a load", exc_info=error)
            self._catalog.set_failed(entry, told)
            return f"model {settings.name}, version {version}: {told}"
        entry.on_end = folder.remove
        self._catalog.publish(settings.name, entry, servable)
        return None


def _why_empty(settings: ModelSettings, there: Collection[int]) -> str:
    if not there:
        return (
            f"No version found for model in path: {settings.base_path}; expected folders with "
            "numbers for names: 1, 2, ..."
        )
    if not settings.version_policy.choose(frozenset(there)):
        found = ", ".join(map(str, sorted(there)))
        return (
            f"model {settings.name}: model_version_policy takes none of the versions that are "
            f"there: {found}"
        )
    return ""


def _settings_of(entry: VersionEntry) -> ModelSettings:
    """What an available version of a model was loaded with."""
    assert isinstance(entry.servable, Model)
    return entry.servable.settings
