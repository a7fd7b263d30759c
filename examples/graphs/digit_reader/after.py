"""Probabilities become a text: the likeliest digits first."""

import numpy as np
from pyovms import Tensor


class OvmsPythonModel:
    def initialize(self, kwargs):
        self.output = kwargs["output_names"][0]

    def execute(self, inputs):
        probabilities = np.array(inputs[0])[0]
        best = probabilities.argsort()[::-1][:3]
        text = ", ".join(f"{digit} ({probabilities[digit]:.0%})" for digit in best).encode()
        # One element of BYTES: its length, then the text.
        element = len(text).to_bytes(4, "little") + text
        return [Tensor(self.output, element, shape=[1], datatype="BYTES")]
