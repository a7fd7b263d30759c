"""The models that pipelines are made of."""

from __future__ import annotations

import pytest
from pipelines.pipes import model_catalog

from kfs.repository.catalog import Catalog


@pytest.fixture(scope="session")
def models_catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return model_catalog(tmp_path_factory.mktemp("pipelines"))
