"""The servers to compare ours with: `python servers.py echo|plain PORT MODEL.xml`.

echo: the transport floor. grpcio's thread-pool server with a handler of raw bytes that gives
back a ready-made response of the right size: nothing is read, inferred or written.
plain: grpcio, protobuf and numpy around the same model, as one writes it without more ado.
"""

from __future__ import annotations

import queue
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import openvino as ov

from kfs._proto import grpc_predict_v2_pb2 as pb

LIMITS = [
    ("grpc.max_receive_message_length", 1 << 30),
    ("grpc.max_send_message_length", 1 << 30),
]


def values_of(message: Any) -> Any:
    if message.raw_input_contents:
        return np.frombuffer(message.raw_input_contents[0], np.float32)
    return np.array(message.inputs[0].contents.fp32_contents, np.float32)


class Plain:
    def __init__(self, path: Path) -> None:
        model = ov.Core().compile_model(path, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(max(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"), 1)):
            self.requests.put(model.create_infer_request())

    def infer(self, message: Any, context: Any) -> Any:
        array = values_of(message).reshape(tuple(message.inputs[0].shape))
        request = self.requests.get()
        try:
            result = request.infer([array], share_inputs=True)[0]
        finally:
            self.requests.put(request)
        response = pb.ModelInferResponse(
            model_name=message.model_name, model_version="1", id=message.id
        )
        response.outputs.add(name="output", datatype="FP32", shape=result.shape)
        response.raw_output_contents.append(result.tobytes())
        return response


class Echo:
    """Answers with the input of the first request of the same size; made once per size."""

    def __init__(self) -> None:
        self.responses: dict[int, bytes] = {}

    def infer(self, data: bytes, context: Any) -> bytes:
        response = self.responses.get(len(data))
        if response is None:
            message = pb.ModelInferRequest.FromString(data)
            answer = pb.ModelInferResponse(model_name=message.model_name, model_version="1")
            answer.outputs.add(name="output", datatype="FP32", shape=message.inputs[0].shape)
            answer.raw_output_contents.append(values_of(message).tobytes())
            response = self.responses[len(data)] = answer.SerializeToString()
        return response


def main() -> None:
    kind, port, path = sys.argv[1:]
    if kind == "echo":
        method = grpc.unary_unary_rpc_method_handler(Echo().infer)
    else:
        method = grpc.unary_unary_rpc_method_handler(
            Plain(Path(path)).infer,
            request_deserializer=pb.ModelInferRequest.FromString,
            response_serializer=pb.ModelInferResponse.SerializeToString,
        )
    server = grpc.server(ThreadPoolExecutor(64), options=LIMITS)
    ready = pb.ModelReadyResponse(ready=True).SerializeToString()
    handlers = {
        "ModelInfer": method,
        "ModelReady": grpc.unary_unary_rpc_method_handler(lambda data, context: ready),
    }
    service = "inference.GRPCInferenceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_registered_method_handlers(service, handlers)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
