"""The bundled example: a small convolutional network for handwritten digits, and images for it.

The README.md beside this file tells where the data come from, how well the model does on images
it has not seen, and how to train it anew.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_HERE = Path(__file__).resolve().parent

#: The name it is served under.
MODEL_NAME = "digits"
#: Its folder in the form of a model repository, with version 1.
MODEL_PATH: Path = _HERE / "model"
#: Names of its tensors: images [N,8,8,1], or encoded ones; probabilities [N,10].
INPUT, OUTPUT = "image", "probabilities"


class DigitImage(NamedTuple):
    """A grey image of 8x8 pixels that the model was not trained on.

    Attributes:
        path: the PNG file.
        truth: the digit somebody wrote.
        data: the bytes of the file, as a client sends them.
    """

    path: Path
    truth: int
    data: bytes


def images() -> list[DigitImage]:
    """The bundled images, by the number in their names."""
    found = []
    for path in sorted((_HERE / "images").glob("*.png")):
        name = re.fullmatch(r"\d+_digit(\d)", path.stem)
        if name:
            found.append(DigitImage(path, int(name.group(1)), path.read_bytes()))
    return found
