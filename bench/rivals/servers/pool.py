"""What the rivals share: the model, compiled as ours is, and its infer requests."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import openvino as ov

#: As ours is told by peers.py. One thread: more of them spin for the cores that the clients need.
PROPERTIES = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}


class Pool:
    """A model from FP32 `input` to FP32 `output`, with as many infer requests as it likes."""

    def __init__(self, path: str) -> None:
        model = ov.Core().compile_model(path, "CPU", PROPERTIES)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(max(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"), 1)):
            self._requests.put(model.create_infer_request())

    @contextmanager
    def infer(self, array: np.ndarray) -> Iterator[np.ndarray]:
        """The output, which lies in the request's own memory and is valid meanwhile."""
        request = self._requests.get()
        try:
            yield request.infer([array], share_inputs=True, share_outputs=True)[0]
        finally:
            self._requests.put(request)
