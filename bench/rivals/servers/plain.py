"""grpcio, protobuf and numpy around the model, without more ado: `plain.py PORT NAME MODEL.xml`."""

from __future__ import annotations

import sys
from typing import Any

import grpc
import numpy as np
from pool import Pool
from transport import serve

from kfs._proto import grpc_predict_v2_pb2 as pb


class Plain:
    def __init__(self, path: str) -> None:
        self._pool = Pool(path)

    def infer(self, request: Any, context: Any) -> Any:
        tensor = request.inputs[0]
        if request.raw_input_contents:
            array = np.frombuffer(request.raw_input_contents[0], np.float32)
        else:
            array = np.array(tensor.contents.fp32_contents, np.float32)
        response = pb.ModelInferResponse(
            model_name=request.model_name, model_version="1", id=request.id
        )
        with self._pool.infer(array.reshape(tuple(tensor.shape))) as result:
            response.outputs.add(name="output", datatype="FP32", shape=result.shape)
            response.raw_output_contents.append(result.tobytes())
        return response


if __name__ == "__main__":
    port, _, model = sys.argv[1:]
    method = grpc.unary_unary_rpc_method_handler(
        Plain(model).infer,
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelInferResponse.SerializeToString,
    )
    serve(port, method)
