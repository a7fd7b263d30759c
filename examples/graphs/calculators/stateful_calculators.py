"""Calculators that remember: every stream has an object of its own, for as long as it is open."""

import cv2
import numpy as np

from kfs.servables.graph import (
    IMAGE,
    OV_TENSOR,
    Calculator,
    CalculatorError,
    Contract,
    NodeContext,
)


class RunningMean(Calculator):
    """VALUES, any numeric tensor, to MEAN, FP64 [1]: of all values since the stream began."""

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0

    @classmethod
    def contract(cls, contract: Contract) -> None:
        (values,), (mean,) = contract.node.inputs, contract.node.outputs
        contract.inputs[values] = OV_TENSOR
        contract.outputs[mean] = OV_TENSOR

    def process(self, context: NodeContext) -> None:
        values = context.input("VALUES")
        self.total += float(values.sum())
        self.count += values.size
        if not self.count:
            raise CalculatorError("there is no mean of no values")
        context.send(np.array([self.total / self.count]), "MEAN")


class CountObjects(Calculator):
    """IMAGE, grey, light objects on a dark ground, to COUNTS, INT32 [2]: now, and so far.

    An object is the same as one of the frame before when it has moved by less than REACH pixels.
    """

    REACH = 12

    def __init__(self) -> None:
        self.places = np.empty((0, 2))
        self.n_seen = 0

    @classmethod
    def contract(cls, contract: Contract) -> None:
        (frame,), (counts,) = contract.node.inputs, contract.node.outputs
        contract.inputs[frame] = IMAGE
        contract.outputs[counts] = OV_TENSOR

    def process(self, context: NodeContext) -> None:
        frame = context.input("IMAGE")
        if frame.format != "GRAY8":
            raise CalculatorError(f"expected a frame in GRAY8; found {frame.format}")
        mask = (frame.pixels[:, :, 0] > 127).astype(np.uint8)
        _, _, _, centroids = cv2.connectedComponentsWithStats(mask)
        places = centroids[1:]  # the first is the ground
        known = list(self.places)
        for place in places:
            distances = [np.hypot(*(place - before)) for before in known]
            if distances and min(distances) < self.REACH:
                del known[int(np.argmin(distances))]
            else:
                self.n_seen += 1
        self.places = places
        context.send(np.array([len(places), self.n_seen], np.int32), "COUNTS")
