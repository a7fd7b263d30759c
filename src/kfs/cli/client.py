"""A client for the commands: the protocol's messages over a channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from kfs.settings import MAX_MESSAGE_NBYTES

# Imported where they are used, so that --help need not wait for them.
if TYPE_CHECKING:
    import grpc

    from kfs._proto import grpc_predict_v2_pb2 as pb

_METHODS = "/inference.GRPCInferenceService/"


class Client:
    """The calls the commands make, each with a deadline."""

    def __init__(self, channel: grpc.Channel, timeout_s: float) -> None:
        self._channel = channel
        self._timeout_s = timeout_s

    def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        from kfs._proto import grpc_predict_v2_pb2 as pb

        answer: pb.ModelInferResponse = self._call("ModelInfer", request, pb.ModelInferResponse)
        return answer

    def is_ready(self, name: str, version: str = "") -> bool:
        from kfs._proto import grpc_predict_v2_pb2 as pb

        request = pb.ModelReadyRequest(name=name, version=version)
        return bool(self._call("ModelReady", request, pb.ModelReadyResponse).ready)

    def metadata(self, name: str, version: str = "") -> pb.ModelMetadataResponse:
        from kfs._proto import grpc_predict_v2_pb2 as pb

        request = pb.ModelMetadataRequest(name=name, version=version)
        answer: pb.ModelMetadataResponse = self._call(
            "ModelMetadata", request, pb.ModelMetadataResponse
        )
        return answer

    def index(self) -> dict[str, list[pb.RepositoryIndexResponse.ModelIndex]]:
        """What the server says of its versions, by name; empty where it does not say."""
        import grpc

        from kfs._proto import grpc_predict_v2_pb2 as pb

        index: dict[str, list[pb.RepositoryIndexResponse.ModelIndex]] = {}
        try:
            answer = self._call(
                "RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            return index
        for model in answer.models:
            index.setdefault(model.name, []).append(model)
        return index

    def servables(self) -> list[str]:
        """The names of all servables: what the health service knows, but for the server itself."""
        import grpc

        from kfs._proto import health_list_pb2 as list_pb

        call = self._channel.unary_unary(
            "/grpc.health.v1.Health/List",
            request_serializer=list_pb.HealthListRequest.SerializeToString,
            response_deserializer=list_pb.HealthListResponse.FromString,
        )
        try:
            answer = call(list_pb.HealthListRequest(), timeout=self._timeout_s)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            raise click.ClickException(
                "this server does not list what it serves (the method List of grpc.health.v1); "
                "name the servables: kfs-fast models NAME"
            ) from None
        return sorted(name for name in answer.statuses if name)

    def _call(self, method: str, request: Any, kind: Any) -> Any:
        serialize: Callable[[Any], bytes] = lambda message: message.SerializeToString()  # noqa: E731
        call = self._channel.unary_unary(
            _METHODS + method, request_serializer=serialize, response_deserializer=kind.FromString
        )
        return call(request, timeout=self._timeout_s)


@contextmanager
def connect(url: str, timeout_s: float) -> Iterator[Client]:
    """A client of the server at `host:port`.

    A call that fails ends the command with one line.
    """
    import grpc

    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_NBYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_NBYTES),
    ]
    with grpc.insecure_channel(url, options=options) as channel:
        try:
            yield Client(channel, timeout_s)
        except grpc.RpcError as error:
            details = " ".join((error.details() or "").split())
            raise click.ClickException(f"{error.code().name}: {details}") from None


url_option = click.option(
    "--url", default="localhost:9000", show_default=True, help="The server, as host:port."
)
timeout_option = click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), default=30.0,
    show_default=True, help="Seconds to wait for each answer.",
)  # fmt: skip
