"""The gRPC server: handlers of the services on grpcio's thread-pool server."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from kfs import errors
from kfs._fast.wire import check_strings
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.errors import ServingError, WireError
from kfs.servables.base import CallContext, NewContext
from kfs.servables.binding import NO_SHARED_MEMORY
from kfs.server.arrival import wait_for_arrival
from kfs.server.control import ControlHandler
from kfs.server.health import MAX_WATCHES, Health
from kfs.server.infer import InferHandler
from kfs.server.status import status_of
from kfs.server.threads import (
    MAX_CONTROL_THREADS,
    CallThreads,
    control_threads,
    on_control_threads,
)
from kfs.server.tls import TlsFiles, server_credentials
from kfs.server.unary import Answer, UnaryCalls
from kfs.settings import MAX_MESSAGE_NBYTES, ServerSettings

Handler = Any  # grpc.RpcMethodHandler, which takes type arguments in its stub alone

SERVICE = "inference.GRPCInferenceService"

# Threads are made when first needed.
_DEFAULT_MAX_THREADS = max(64, 8 * (os.cpu_count() or 1))

# How long a call that was cancelled may take to notice.
_END_S = 1.0

# Threads for streams beyond the allowed number, which have to be told so.
_N_REFUSERS = 4

# Threads for clients that ask what is served and may take their time.
_N_REFLECTORS = 64


@dataclass(frozen=True)
class Transport:
    """grpcio's server, its unary calls, and the threads that calls run on.

    Attributes:
        stopping: set while the server stops; streams look at it.
    """

    server: grpc.Server
    unary_calls: tuple[UnaryCalls, ...]
    threads: tuple[CallThreads, ...]
    stopping: threading.Event

    def start(self) -> None:
        """Take calls, on every address that has been bound."""
        self.server.start()
        for calls in self.unary_calls:
            calls.start()

    def stop(self, grace_s: float) -> int:
        """Take no new call, let the running ones finish, close the port.

        Args:
            grace_s: seconds to wait for running calls; after that they are cancelled.

        Returns:
            How many calls are stuck, in a handler for instance, and hold their threads.
        """
        self.stopping.set()
        with ExitStack() as stack:
            for calls in self.unary_calls:
                stack.enter_context(calls.stopping())
            stopped = self.server.stop(grace_s)
        stopped.wait()
        for calls in self.unary_calls:
            calls.close()
        return sum(threads.wait(_END_S) for threads in self.threads)


def max_calls_of_each(settings: ServerSettings) -> int:
    """How many calls of one pipeline or graph may be under way, which leaves some to others."""
    return settings.defaults.max_waiting_calls + (_n_threads(settings) + 1) // 2


def _n_threads(settings: ServerSettings) -> int:
    return settings.grpc_max_threads or _DEFAULT_MAX_THREADS


def make_server(
    settings: ServerSettings, infer: InferHandler, control: ControlHandler, health: Health
) -> Transport:
    """A server with every service registered, not yet bound to an address."""
    n_threads = _n_threads(settings)
    n_calls = n_threads + settings.defaults.max_waiting_calls
    n_streams = settings.max_streams + _N_REFUSERS
    threads = CallThreads(n_threads, n_calls + 1, "call")  # one waits for calls
    stream_threads = CallThreads(n_streams, n_streams, "stream")
    reflection_threads = CallThreads(_N_REFLECTORS, _N_REFLECTORS, "reflection")
    server = grpc.server(
        reflection_threads,  # all others have their own
        options=_options(settings),
        # What waits for a thread is bounded, too.
        maximum_concurrent_rpcs=n_streams + MAX_WATCHES + MAX_CONTROL_THREADS,
    )
    unary_calls = (
        UnaryCalls(server, {f"/{SERVICE}/ModelInfer": infer.infer}, threads, n_calls),
        # Questions are answered, however many inferences are under way.
        UnaryCalls(server, _control_methods(control), control_threads(), MAX_CONTROL_THREADS - 1),
    )
    stopping = threading.Event()
    streams = _stream_method(infer, settings.max_streams, stream_threads, stopping)
    handlers = {"ModelStreamInfer": streams}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    # Registered methods spare the lookup among generic handlers at every call.
    server.add_registered_method_handlers(SERVICE, handlers)
    health.register(server)
    services = (SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME)
    reflection.enable_server_reflection(services, server, pool=_reflection_pool())
    server.add_generic_rpc_handlers((_UnknownMethods(),))  # asked last
    all_threads = (threads, stream_threads, reflection_threads, health.threads)
    return Transport(server, unary_calls, all_threads, stopping)


class _UnknownMethods(grpc.GenericRpcHandler):
    """UNIMPLEMENTED for every method that is not served, without a text but for shared memory.

    Triton's perf_analyzer goes on without ModelConfig and ModelStatistics only if that is all
    that it is told.
    """

    def __init__(self) -> None:
        self._any = _refusal("")
        self._shared_memory = _refusal(NO_SHARED_MEMORY)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        is_of_memory = "SharedMemory" in handler_call_details.method
        return self._shared_memory if is_of_memory else self._any


def _refusal(text: str) -> Handler:
    def refuse(messages: Iterator[bytes], context: grpc.ServicerContext) -> NoReturn:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, text)
        raise AssertionError("unreachable")

    # A stream to grpcio, whatever it is: the refusal waits for no message.
    return grpc.stream_unary_rpc_method_handler(on_control_threads(refuse))


class ListenError(Exception):
    """An address that cannot be listened on; one readable line."""


def listen(server: grpc.Server, settings: ServerSettings) -> int:
    """Bind every address of the settings, with TLS when they name a certificate.

    Returns:
        The port; that of the settings unless it is 0.

    Raises:
        ListenError: an address cannot be bound.
        TlsError: the certificates cannot be used.
    """
    port = settings.port
    for host in settings.grpc_bind_address:
        is_path = host.startswith("unix:")
        address = host if is_path else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        # One for each address: binding uses up the configuration they begin with.
        credentials = _credentials(settings)
        try:
            if credentials is None:
                bound = server.add_insecure_port(address)
            else:
                bound = server.add_secure_port(address, credentials)
        except RuntimeError:
            raise ListenError(
                f"cannot listen on {address}: is the port in use, or the address not of this "
                "machine?"
            ) from None
        # Port 0 takes a free one; the other addresses then get the same.
        port = port if is_path else bound
    return port


def _credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    if settings.certificate_path is None or settings.key_path is None:
        return None
    return server_credentials(
        TlsFiles(settings.certificate_path, settings.key_path, settings.client_ca_path)
    )


def _options(settings: ServerSettings) -> list[tuple[str, str | int]]:
    options: dict[str, str | int] = {
        "grpc.max_receive_message_length": MAX_MESSAGE_NBYTES,
        "grpc.max_send_message_length": MAX_MESSAGE_NBYTES,
        # Two servers on one port would share its calls in silence; workers are to.
        "grpc.so_reuseport": int(settings.n_workers > 1),
    }
    options.update(settings.grpc_channel_arguments)
    return list(options.items())


def _reflection_pool() -> DescriptorPool:
    """One pool with the descriptions of all services; ours are kept apart otherwise."""
    pool = DescriptorPool()
    for file in (pb.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        pool.AddSerializedFile(file.serialized_pb)
    return pool


def _new_contexts(context: grpc.ServicerContext) -> NewContext:
    # It comes by `time.time`, which jumps when somebody sets the clock.
    remaining_s = context.time_remaining()
    deadline = None if remaining_s is None else time.monotonic() + remaining_s
    return lambda: CallContext(context.is_active, deadline)


class _Sink:
    """The answers of one stream, from whatever thread has one."""

    def __init__(
        self,
        context: grpc.ServicerContext,
        send: Callable[[bytes | None], None],
        stopping: threading.Event,
    ) -> None:
        self._context = context
        self._send = send
        self._stopping = stopping
        self._sending = threading.Lock()
        self._has_ended = False

    def send(self, message: bytes) -> None:
        with self._sending:
            if not self._has_ended and self._context.is_active():
                self._send(message)
            if self._has_ended or not self._context.is_active():
                raise ServingError(errors.CANCELLED)

    def fail(self, error: BaseException) -> None:
        status = status_of(error)
        with self._sending:
            if not self._has_ended:
                self._context.set_code(status.code)
                self._context.set_details(status.details)
                self._end()

    def close(self) -> None:
        with self._sending:
            if not self._has_ended:
                self._end()

    def _end(self) -> None:
        self._has_ended = True
        if self._stopping.is_set():
            # The end of the last call is that of its connection.
            wait_for_arrival(self._context.peer(), self._context.is_active)
        self._send(None)


def _stream_method(
    handler: InferHandler, max_streams: int, stream_threads: CallThreads, stopping: threading.Event
) -> Handler:
    """Raw bytes in and out: gRPC is not told how to parse, the handler reads by itself."""
    slots = threading.BoundedSemaphore(max_streams)

    def stream(
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
        send: Callable[[bytes | None], None],
    ) -> None:
        sink = _Sink(context, send, stopping)
        if not slots.acquire(blocking=False):
            sink.fail(ServingError(errors.TOO_MANY_STREAMS, f"{max_streams} are open"))
            return
        try:
            try:
                handler.stream(messages, _new_contexts(context), sink)
            finally:
                slots.release()  # before the client hears of the end, and begins another stream
        except BaseException as error:
            # Without an end of the call, the client would wait for one for good.
            # A client that has gone ends the iteration over its messages with an error.
            sink.fail(error if context.is_active() else ServingError(errors.CANCELLED))
        else:
            sink.close()

    # What grpcio offers for methods that answer from other threads than the one that reads, and
    # that have threads of their own: streams, idle for hours, take none from other calls.
    stream.experimental_non_blocking = True  # type: ignore[attr-defined]
    stream.experimental_thread_pool = stream_threads  # type: ignore[attr-defined]
    return grpc.stream_stream_rpc_method_handler(stream)


def _control_methods(handler: ControlHandler) -> dict[str, Answer]:
    methods: dict[str, tuple[Callable[[Any], Message], type[Message]]] = {
        "ServerLive": (handler.server_live, pb.ServerLiveRequest),
        "ServerReady": (handler.server_ready, pb.ServerReadyRequest),
        "ServerMetadata": (handler.server_metadata, pb.ServerMetadataRequest),
        "ModelReady": (handler.model_ready, pb.ModelReadyRequest),
        "ModelMetadata": (handler.model_metadata, pb.ModelMetadataRequest),
        "RepositoryIndex": (handler.repository_index, pb.RepositoryIndexRequest),
    }
    return {f"/{SERVICE}/{name}": _on_bytes(*method) for name, method in methods.items()}


def _on_bytes(answer: Callable[[Any], Message], kind: type[Message]) -> Answer:
    """A method on messages, parsed inside the handler so that a malformed one gets its status."""

    def method(data: bytes, call: CallContext) -> bytes:
        return answer(_parse(data, kind)).SerializeToString()

    return method


def _parse(data: bytes, kind: type[Message]) -> Message:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        fault: Exception = error
        strings = {field.number: field.name for field in kind.DESCRIPTOR.fields
                   if field.type == FieldDescriptor.TYPE_STRING}  # fmt: skip
        try:
            check_strings(data, strings)  # which says where it is
        except WireError as found:
            fault = found
        raise ServingError(errors.MALFORMED_MESSAGE, f"{kind.DESCRIPTOR.name}: {fault}") from None
