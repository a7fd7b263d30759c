"""Make the second model: from the probabilities of ten digits to those of even and odd.

python examples/graphs/two_models/make_parity.py
"""

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as op

HERE = Path(__file__).resolve().parent


def make() -> ov.Model:
    probabilities = op.parameter([-1, 10], ov.Type.f32, name="probabilities")
    probabilities.output(0).get_tensor().set_names({"probabilities"})
    # Column 0 adds up the even digits, column 1 the odd ones.
    weights = np.tile(np.eye(2, dtype=np.float32), (5, 1))
    parity = op.matmul(probabilities, op.constant(weights), False, False)
    parity.output(0).get_tensor().set_names({"parity"})
    return ov.Model([parity], [probabilities], "parity")


if __name__ == "__main__":
    folder = HERE / "parity" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(make(), folder / "parity.xml", compress_to_fp16=False)
