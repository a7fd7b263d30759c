"""The floors of the house: imports point down, and each big dependency has one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "kfs"

FLOORS = {
    "errors": 0, "datatypes": 0, "signature": 0, "settings": 0, "options": 0, "files": 0,
    "helpers": 0,
    "_proto": 0, "digits": 0,
    "_fast": 1, "pyovms": 2, "tensors": 2, "metrics": 2, "servables": 3,
    "repository": 4, "server": 5, "cli": 6,
}  # fmt: skip

DOORS = {
    "openvino": ("servables/model/",),
    "kfs.servables.model": ("servables/model/", "repository/models.py", "cli/"),
    "cv2": ("tensors/images.py", "tensors/transform.py"),
    "grpc": ("server/", "cli/client.py", "cli/models.py", "cli/bench/load.py"),
    "prometheus_client": ("metrics/registry.py",),
    "waitress": ("server/side_port.py",),
    "pydantic": ("repository/schema.py",),
    "pydantic_core": ("repository/schema.py",),
    "azure": ("repository/storage/azure.py",),
    "boto3": ("repository/storage/s3.py",),
    "botocore": ("repository/storage/s3.py",),
    "google.auth": ("repository/storage/gs.py",),
    "google.cloud": ("repository/storage/gs.py",),
    "click": ("cli/",),
    "rich": ("cli/console.py",),
    "matplotlib": ("cli/bench/plot.py",),
}


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if "_pb2" not in path.name)


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "kfs" and len(parts) > 1:
            assert FLOORS[parts[1]] <= FLOORS[room], f"{path} climbs up to {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_each_dependency_has_one_door(path: Path) -> None:
    place = path.relative_to(SOURCE).as_posix()
    for name in imported(path):
        for dependency, doors in DOORS.items():
            if f"{name}.".startswith(f"{dependency}."):
                assert place.startswith(doors), f"{place} imports {name}; its door is {doors}"
