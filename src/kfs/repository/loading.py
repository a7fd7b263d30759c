"""Load what an operator asked for into the catalog."""

from __future__ import annotations

import logging

from kfs.errors import ModelLoadError
from kfs.repository.catalog import Catalog
from kfs.repository.folders import find_versions
from kfs.servables.model import Model
from kfs.settings import ModelSettings

_log = logging.getLogger("kfs.repository")


def load_model(settings: ModelSettings, catalog: Catalog) -> None:
    """Load the latest version of a model. Without any version folder, only its name is known.

    Raises:
        ModelLoadError: one line that begins with the model's name.
    """
    catalog.add_name(settings.name)
    try:
        versions = find_versions(settings.base_path)
    except ModelLoadError as error:
        raise ModelLoadError(f"model {settings.name}: {error}") from error
    if not versions:
        _log.warning("No version found for model in path: %s", settings.base_path)
        return
    version = max(versions)
    entry = catalog.add_version(settings.name, version)
    try:
        servable = Model.load(settings, version, versions[version])
    except ModelLoadError as error:
        catalog.set_failed(entry, str(error))
        raise ModelLoadError(f"model {settings.name}, version {version}: {error}") from error
    catalog.publish(entry, servable)
    _log.info("Version %d of model %s is available", version, settings.name)
