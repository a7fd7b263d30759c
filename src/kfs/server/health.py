"""grpc.health.v1: the server as a whole (service name "") and every servable by its name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from grpc_health.v1 import health_pb2

from kfs._proto import health_list_pb2 as list_pb
from kfs.server.threads import CallThreads, on_control_threads

SERVICE = "grpc.health.v1.Health"

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

#: Each has a thread while it is open; threads are made when first needed.
MAX_WATCHES = 1000
# Threads for watches beyond the allowed number, which have to be told so.
_N_REFUSERS = 4


class Health:
    """What the health service says; everything is NOT_SERVING until told otherwise.

    Who watches is told on a thread of its own: to send waits for as long as the client does not
    read. No lock is held meanwhile, so nobody else waits for that client.

    Attributes:
        threads: those that watches run on.
    """

    def __init__(self) -> None:
        self.threads = CallThreads(MAX_WATCHES + _N_REFUSERS, MAX_WATCHES + _N_REFUSERS, "watch")
        self._slots = threading.BoundedSemaphore(MAX_WATCHES)
        self._lock = threading.Lock()
        # Replaced and never changed, so that it is read without the lock.
        self._statuses: dict[str, int] = {}
        self._is_stopping = False
        #: For each service, what wakes those who watch it.
        self._watches: dict[str, set[threading.Event]] = {}
        self.set_server(serving=False)

    def set_server(self, *, serving: bool) -> None:
        self._set("", serving=serving)

    def set_servable(self, name: str, *, serving: bool) -> None:
        self._set(name, serving=serving)

    def _set(self, service: str, *, serving: bool) -> None:
        with self._lock:
            if self._is_stopping:
                return
            self._statuses = {**self._statuses, service: SERVING if serving else NOT_SERVING}
            for news in self._watches.get(service, ()):
                news.set()

    def enter_shutdown(self) -> None:
        """NOT_SERVING for good, so that load balancers turn away before the port closes."""
        with self._lock:
            self._statuses = dict.fromkeys(self._statuses, NOT_SERVING)
            self._is_stopping = True
            for watches in self._watches.values():
                for news in watches:
                    news.set()

    def register(self, server: grpc.Server) -> None:
        def watch(
            requests: Iterator[health_pb2.HealthCheckRequest], context: grpc.ServicerContext
        ) -> Iterator[health_pb2.HealthCheckResponse]:
            return self._watch(requests, context)

        watch.experimental_thread_pool = self.threads  # type: ignore[attr-defined]
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(
                on_control_threads(lambda *call: self._check(*call)),
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
            # A stream to grpcio, so that the refusal of one too many waits for no message.
            "Watch": grpc.stream_stream_rpc_method_handler(
                watch,
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

    def _check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        status = self._statuses.get(request.service)
        if status is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "")
        return health_pb2.HealthCheckResponse(status=status)

    def _watch(
        self, requests: Iterator[health_pb2.HealthCheckRequest], context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        """The latest status whenever it is another one; what came between is left out."""
        if not self._slots.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHES} watches are open")
        try:
            request = next(requests, None)
            if request is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Watch needs a request")
                raise AssertionError("unreachable")
            told = None
            with self._news_of(request.service) as news:
                if not context.add_callback(news.set):
                    return
                while context.is_active():
                    news.clear()  # before looking, so that nothing is missed
                    is_stopping = self._is_stopping
                    status = self._statuses.get(request.service, SERVICE_UNKNOWN)
                    if status != told:
                        told = status
                        yield health_pb2.HealthCheckResponse(status=status)
                    elif is_stopping:  # the server would wait for this call
                        context.abort(grpc.StatusCode.UNAVAILABLE, "The server stops")
                    else:
                        news.wait()
        finally:
            self._slots.release()

    @contextmanager
    def _news_of(self, service: str) -> Iterator[threading.Event]:
        news = threading.Event()
        with self._lock:
            self._watches.setdefault(service, set()).add(news)
        try:
            yield news
        finally:
            with self._lock:
                watches = self._watches[service]
                watches.remove(news)
                if not watches:
                    del self._watches[service]

    def _list(
        self, request: list_pb.HealthListRequest, context: grpc.ServicerContext
    ) -> list_pb.HealthListResponse:
        return list_pb.HealthListResponse(
            statuses={
                name: list_pb.HealthCheckResponse(status=status)
                for name, status in self._statuses.items()
            }
        )
