"""grpc.health.v1: the server as a whole (service name "") and every servable by its name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class _Servicer(health.HealthServicer):  # type: ignore[misc]  # the package has no types
    """grpcio's servicer with the method List, which it has not."""

    def __init__(self) -> None:
        # The non-blocking kind: a client that watches occupies no thread.
        super().__init__(
            experimental_non_blocking=True, experimental_thread_pool=ThreadPoolExecutor(1)
        )
        self._listed: dict[str, int] = {}

    def set(self, service: str, status: int) -> None:
        self._listed = {**self._listed, service: status}
        super().set(service, status)

    def List(  # noqa: N802
        self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthListResponse:
        return health_pb2.HealthListResponse(
            statuses={
                name: health_pb2.HealthCheckResponse(status=status)
                for name, status in self._listed.items()
            }
        )


class Health:
    """What the health service says; everything is NOT_SERVING until told otherwise."""

    def __init__(self) -> None:
        self._servicer = _Servicer()
        self.set_server(serving=False)

    def set_server(self, *, serving: bool) -> None:
        self._servicer.set("", SERVING if serving else NOT_SERVING)

    def set_servable(self, name: str, *, serving: bool) -> None:
        self._servicer.set(name, SERVING if serving else NOT_SERVING)

    def enter_shutdown(self) -> None:
        """NOT_SERVING for good, so that load balancers turn away before the port closes."""
        self._servicer.enter_graceful_shutdown()

    def register(self, server: grpc.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
