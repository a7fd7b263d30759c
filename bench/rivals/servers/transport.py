"""The plain server and the transport floor on grpcio's thread pool."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

_LIMITS = [
    ("grpc.max_receive_message_length", 1 << 30),
    ("grpc.max_send_message_length", 1 << 30),
]


def serve(port: str, method: Any) -> None:
    """Serve ModelInfer until the process is told to end."""
    server = grpc.server(ThreadPoolExecutor(64), options=_LIMITS)
    handlers = {"ModelInfer": method}
    service = "inference.GRPCInferenceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_registered_method_handlers(service, handlers)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()
