"""Version folders of a model repository."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from kfs.errors import ModelLoadError
from kfs.settings import GraphSettings

_log = logging.getLogger("kfs.repository")
_VERSION = re.compile(r"[1-9][0-9]*")
#: The largest version number: versions are 64-bit integers on the wire.
MAX_VERSION = (1 << 63) - 1

#: Base paths that are addresses in a cloud.
CLOUD_PREFIXES = ("s3://", "gs://", "az://", "azfs://")

#: The file that makes a folder a graph, and the one with its models.
GRAPH_FILE = "graph.pbtxt"
SUBCONFIG = "subconfig.json"


def find_graph(name: str, base: Path) -> GraphSettings | None:
    """The graph in a folder, or in its version 1; None when there is none."""
    return _graph_in(name, base) or find_version_graph(name, base)


def find_version_graph(name: str, base: Path) -> GraphSettings | None:
    """The graph in the version 1 of a folder; None when there is none."""
    return _graph_in(name, base / "1")


def _graph_in(name: str, folder: Path) -> GraphSettings | None:
    path = folder / GRAPH_FILE
    if not os.path.isfile(path):
        return None
    return GraphSettings(name, folder, path, (folder / SUBCONFIG, folder / "config.json"))


def find_versions(base_path: Path) -> dict[int, Path]:
    """The versions of a model: folders named by positive integers; a file is its own version 1.

    Other names are left out with a warning.

    Raises:
        ModelLoadError: there is nothing at `base_path`.
        OSError: whether there is cannot be told.
    """
    try:
        with os.scandir(base_path) as found:
            names = sorted(entry.name for entry in found if os.path.isdir(entry.path))
    except NotADirectoryError:
        return {1: base_path}
    except FileNotFoundError as error:
        raise ModelLoadError(f"cannot read the model path {base_path}: {error.strerror}") from None
    except ValueError as error:
        raise ModelLoadError(f"cannot read the model path {str(base_path)!r}: {error}") from None
    locations = number_versions(str(base_path), names)
    return {number: Path(location) for number, location in locations.items()}


def number_versions(base_path: str, names: Iterable[str]) -> dict[int, str]:
    """Locations of the folders whose names are version numbers; others are warned of once."""
    versions = dict[int, str]()
    for name in names:
        location = f"{base_path}/{name}"
        if _VERSION.fullmatch(name) and int(name) <= MAX_VERSION:
            versions[int(name)] = location
        else:
            _warn_once(location)
    return versions


@lru_cache(maxsize=4096)
def _warn_once(folder: str) -> None:
    """Folders are looked at again and again."""
    _log.warning("Ignored folder %s: its name is not a version number", folder)


def resolve_path(base_path: str | None, folder: Path) -> Path | str:
    """Where a model is: an address in a cloud as it is, a relative path from `folder`.

    Raises:
        ValueError: there is no path, or `..` is in it.
    """
    if not base_path:
        raise ValueError("expected where the model is; the path is missing")
    if ".." in base_path.split("/"):
        raise ValueError(f"'..' is not allowed in the path {base_path}")
    if base_path.startswith(CLOUD_PREFIXES):
        return base_path
    return Path(os.path.abspath(folder / base_path))
