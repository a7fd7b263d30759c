"""A custom node that repeats its input as often as the parameter `times` says."""

import numpy as np


class Node:
    def inputs(self, params):
        return {"numbers": ("FP32", [1, 10])}

    def outputs(self, params):
        return {"copies": ("FP32", [-1, 1, 10])}

    def execute(self, inputs, params):
        return {"copies": np.stack([inputs["numbers"]] * int(params["times"]))}
