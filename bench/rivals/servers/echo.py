"""The transport floor: `echo.py PORT NAME MODEL.xml`.

A handler of raw bytes that gives back a ready-made response of the size the model's would have,
made once for each size of request: nothing is read, inferred or written.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import numpy as np
import openvino as ov
from transport import serve

from kfs._proto import grpc_predict_v2_pb2 as pb


class Echo:
    def __init__(self, path: str) -> None:
        self._output = ov.Core().read_model(path).output(0).partial_shape
        self._responses: dict[int, bytes] = {}

    def infer(self, data: bytes, context: Any) -> bytes:
        response = self._responses.get(len(data))
        if response is None:
            response = self._responses[len(data)] = self._make(
                pb.ModelInferRequest.FromString(data)
            )
        return response

    def _make(self, request: Any) -> bytes:
        shape = request.inputs[0].shape if self._output.is_dynamic else self._output.to_shape()
        answer = pb.ModelInferResponse(model_name=request.model_name, model_version="1")
        answer.outputs.add(name="output", datatype="FP32", shape=shape)
        answer.raw_output_contents.append(bytes(4 * int(np.prod(shape))))
        return answer.SerializeToString()


if __name__ == "__main__":
    port, _, model = sys.argv[1:]
    serve(port, grpc.unary_unary_rpc_method_handler(Echo(model).infer))
