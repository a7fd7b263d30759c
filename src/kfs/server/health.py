"""grpc.health.v1: the server as a whole (service name "") and every servable by its name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2

from kfs._proto import health_list_pb2 as list_pb
from kfs.server.threads import on_control_threads

SERVICE = "grpc.health.v1.Health"

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """What the health service says; everything is NOT_SERVING until told otherwise."""

    def __init__(self) -> None:
        # The non-blocking kind: a client that watches occupies no thread.
        self._servicer = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=ThreadPoolExecutor(1)
        )
        self._listed: dict[str, int] = {}
        self.set_server(serving=False)

    def set_server(self, *, serving: bool) -> None:
        self._set("", serving=serving)

    def set_servable(self, name: str, *, serving: bool) -> None:
        self._set(name, serving=serving)

    def _set(self, service: str, *, serving: bool) -> None:
        status = SERVING if serving else NOT_SERVING
        self._listed = {**self._listed, service: status}
        self._servicer.set(service, status)

    def enter_shutdown(self) -> None:
        """NOT_SERVING for good, so that load balancers turn away before the port closes."""
        self._servicer.enter_graceful_shutdown()

    def register(self, server: grpc.Server) -> None:
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(
                on_control_threads(lambda *call: self._servicer.Check(*call)),
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self._servicer.Watch,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
            "List": grpc.unary_unary_rpc_method_handler(
                on_control_threads(lambda *call: self._list(*call)),
                request_deserializer=list_pb.HealthListRequest.FromString,
                response_serializer=list_pb.HealthListResponse.SerializeToString,
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.add_registered_method_handlers(SERVICE, handlers)

    def _list(
        self, request: list_pb.HealthListRequest, context: grpc.ServicerContext
    ) -> list_pb.HealthListResponse:
        return list_pb.HealthListResponse(
            statuses={
                name: list_pb.HealthCheckResponse(status=status)
                for name, status in self._listed.items()
            }
        )
