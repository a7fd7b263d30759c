"""The file OpenVINO reads for a model, and the names a mapping file gives to its tensors."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kfs.errors import ModelLoadError
from kfs.files import check_is_file
from kfs.options import parse_json

#: For each format, in the order they are tried: the suffixes that must all be there.
FORMATS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("OpenVINO IR", (".xml", ".bin")),
    ("ONNX", (".onnx",)),
    ("PaddlePaddle", (".pdmodel", ".pdiparams")),
    ("TensorFlow", (".pb",)),
    ("TensorFlow Lite", (".tflite",)),
)
MAPPING_FILE = "mapping_config.json"
_SAVED_MODEL = "saved_model.pb"

_log = logging.getLogger("kfs.model")


def find_model_file(folder: Path) -> Path:
    """The path to hand to OpenVINO for a version folder or a single model file.

    Formats are tried in the order of `FORMATS`; a TensorFlow SavedModel is its folder.

    Raises:
        ModelLoadError: there is no complete model.
    """
    if os.path.isfile(folder):
        return _check_single_file(folder)
    try:
        # TensorFlow saves other .pb files beside the one that is the model.
        files = sorted(
            (path for path in folder.iterdir() if os.path.isfile(path)),
            key=lambda path: (path.name != _SAVED_MODEL, path),
        )
    except OSError as error:
        raise ModelLoadError(f"cannot read {folder}: {error.strerror}") from None
    by_suffix: dict[str, Path] = {}
    for path in files:
        by_suffix.setdefault(path.suffix.lower(), path)
    for _, suffixes in FORMATS:
        if all(suffix in by_suffix for suffix in suffixes):
            return _path_to_read(by_suffix[suffixes[0]])
    wanted = "; ".join(f"{' + '.join(suffixes)} ({name})" for name, suffixes in FORMATS)
    found = ", ".join(path.name for path in files) or "no file"
    raise ModelLoadError(f"no model in {folder}: found {found}; expected one of {wanted}")


def _check_single_file(path: Path) -> Path:
    for name, suffixes in FORMATS:
        if path.suffix.lower() in suffixes:
            for suffix in suffixes:
                if suffix != path.suffix.lower() and not path.with_suffix(suffix).exists():
                    raise ModelLoadError(
                        f"{path} is one half of a model ({name}); {path.with_suffix(suffix).name} "
                        "is missing beside it"
                    )
            is_first = path.suffix.lower() == suffixes[0]
            return _path_to_read(path if is_first else path.with_suffix(suffixes[0]))
    wanted = ", ".join(suffix for _, suffixes in FORMATS for suffix in suffixes)
    raise ModelLoadError(f"{path} is no model: expected a folder, or a file with one of {wanted}")


def _path_to_read(path: Path) -> Path:
    return path.parent if path.name == _SAVED_MODEL else path


@dataclass(frozen=True)
class TensorNames:
    """The names clients use, by the names in the model."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


def read_tensor_names(folder: Path) -> TensorNames:
    """What `mapping_config.json` in a version folder says; nothing when there is none.

    Raises:
        ModelLoadError: the file is not JSON, or not `{"inputs": {...}, "outputs": {...}}`.
    """
    path = (folder.parent if os.path.isfile(folder) else folder) / MAPPING_FILE
    if not os.path.exists(path):
        return TensorNames()
    try:
        check_is_file(path)
        document = parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ModelLoadError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ModelLoadError(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ModelLoadError(f"{path}: expected an object with inputs and outputs")
    for key in document.keys() - {"inputs", "outputs"}:
        _log.warning("%s: %s means nothing; expected inputs and outputs", path, key)
    return TensorNames(_names(document, "inputs", path), _names(document, "outputs", path))


def _names(document: Mapping[str, object], key: str, path: Path) -> dict[str, str]:
    names = document.get(key, {})
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ModelLoadError(f"{path}: {key} is to be an object of strings, tensor name to alias")
    for alias in names.values():
        try:
            alias.encode()
        except UnicodeEncodeError:
            raise ModelLoadError(f"{path}: {key}: no client can send the name {alias!r}") from None
    return names
