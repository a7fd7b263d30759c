"""Train the bundled example anew: `pip install '.[train]' && python examples/digits/train.py`.

The data are scikit-learn's handwritten digits, 1,797 real images of 8x8 pixels with values from
0 to 16. A quarter is held out, stratified and with a fixed seed: nothing is trained on it, and
the accuracy that the example states is measured on all of it. A pixel `v` becomes
`round(v * 255 / 16)`, 0..255 as in the image files; training sees exactly these values, and the
network itself divides them by 255.

State the accuracy it prints in README.md and in src/kfs/digits/README.md; tests compare them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1] / "src" / "kfs" / "digits"
SEED = 20
N_EXAMPLES = 12

Array = npt.NDArray[Any]


class Split(NamedTuple):
    """Images [N,8,8,1] U8 and their labels [N]."""

    images: Array
    labels: Array


def splits() -> tuple[Split, Split]:
    """What is trained on, and what is held out."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    parts = train_test_split(
        images, digits.target, test_size=0.25, stratify=digits.target, random_state=SEED
    )
    return Split(parts[0], parts[2]), Split(parts[1], parts[3])


def examples(held_out: Split) -> list[int]:
    """Indices of the bundled images: the first held-out one of each digit, then the next ones."""
    firsts = [int(np.flatnonzero(held_out.labels == digit)[0]) for digit in range(10)]
    others = [index for index in range(len(held_out.labels)) if index not in firsts]
    return firsts + others[: N_EXAMPLES - len(firsts)]


def network() -> Any:
    from torch import nn

    class Network(nn.Module):
        """Three small convolutions on an image in NHWC; probabilities of ten digits."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
                nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
                nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, 10),
            )  # fmt: skip

        def logits(self, image: Any) -> Any:
            return self.layers(image.permute(0, 3, 1, 2) / 255.0)

        def forward(self, image: Any) -> Any:
            return self.logits(image).softmax(1)

    return Network()


def train(split: Split, epochs: int = 80) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(SEED)
    model = network()
    images = torch.from_numpy(split.images.astype(np.float32))
    labels = torch.from_numpy(split.labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for _ in range(epochs):
        order: Any = torch.randperm(len(images))
        for batch in order.split(32):
            shift = torch.randint(-1, 2, (2,)).tolist()
            moved = torch.roll(images[batch], shift, (1, 2)) if any(shift) else images[batch]
            optimizer.zero_grad()
            loss_of(model.logits(moved), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def export(model: Any, folder: Path) -> Path:
    """Save as IR with names and the layout, without a trace of where it was made."""
    import openvino as ov
    import torch

    converted = ov.convert_model(model, example_input=torch.zeros(1, 8, 8, 1))
    converted.reshape(ov.PartialShape([-1, 8, 8, 1]))
    converted.inputs[0].get_tensor().set_names({"image"})
    converted.outputs[0].get_tensor().set_names({"probabilities"})
    parameter = converted.get_parameters()[0]
    parameter.set_layout(ov.Layout("NHWC"))
    parameter.set_friendly_name("image")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "digits.xml"
    ov.save_model(converted, path, compress_to_fp16=True)
    return path


def accuracy(path: Path, split: Split) -> int:
    """How many images of a split the exported model gets right, in FP32 on any processor."""
    import openvino as ov

    compiled = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    probabilities = compiled(split.images.astype(np.float32))[0]
    return int((probabilities.argmax(1) == split.labels).sum())


def main() -> None:
    import cv2

    training, held_out = splits()
    path = export(train(training), PACKAGE / "model" / "1")
    images = PACKAGE / "images"
    images.mkdir(exist_ok=True)
    for old in images.glob("*.png"):
        old.unlink()
    for number, index in enumerate(examples(held_out)):
        name = f"{number:02}_digit{held_out.labels[index]}.png"
        cv2.imwrite(str(images / name), held_out.images[index])
    print(f"held out: {accuracy(path, held_out)} of {len(held_out.labels)} correct")


if __name__ == "__main__":
    main()
