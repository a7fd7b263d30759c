"""A client for the commands: the protocol's messages over a channel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kfs.cli.numbers import Real
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

    def server(self) -> str:
        """The server's name and version; empty where it does not say."""
        import grpc

        from kfs._proto import grpc_predict_v2_pb2 as pb

        try:
            answer = self._call(
                "ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            return ""
        return f"{answer.name} {answer.version}"

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


def _check_url(context: click.Context, option: click.Parameter, url: str) -> str:
    """gRPC would take a scheme for a part of the name, and port 443 where none is said."""
    _, colon, port = url.rpartition(":")
    is_web = url.startswith(("http://", "https://"))
    if is_web or not (url.startswith("unix:") or (colon and port.isdecimal())):
        raise click.BadParameter(f"expected host:port, such as localhost:9000; found {url}")
    return url


url_option = click.option(
    "--url", metavar="HOST:PORT", default="localhost:9000", show_default=True,
    callback=_check_url, help="The server.",
)  # fmt: skip
timeout_option = click.option(
    "--timeout", "timeout_s", metavar="SECONDS", type=Real(min=0, min_open=True),
    default=30.0, show_default=True, help="To wait for each answer.",
)  # fmt: skip


@dataclass(frozen=True)
class Tls:
    """PEM files to speak TLS with.

    Attributes:
        ca: who signed the server's certificate; None trusts whom gRPC trusts.
        certificate: the client's own, for a server that wants one.
        key: its private key.
    """

    ca: Path | None
    certificate: Path | None
    key: Path | None


@contextmanager
def connect(url: str, timeout_s: float, tls: Tls | None = None) -> Iterator[Client]:
    """A client of the server at `host:port`.

    A call that fails ends the command with one line.
    """

    with _channel(url, tls) as channel:
        import grpc

        try:
            yield Client(channel, timeout_s)
        except grpc.RpcError as error:
            details = " ".join((error.details() or "").split())
            hint = _connection_hint(details, url, tls)
            raise click.ClickException(f"{hint}{error.code().name}: {details}") from None


def _connection_hint(details: str, url: str, tls: Tls | None) -> str:
    """What to look at when there was no connection; `details` are gRPC's."""
    if "failed to connect" not in details:
        return ""
    if "http1.x" in details:
        return f"{url} speaks HTTP, and not gRPC; is it the server's --rest_port? "
    if not any(sign in details for sign in ("Socket closed", "handshak", "SSL", "TLS", "peer")):
        return f"nothing answers at {url}; is the server running, and --url its address? "
    if tls is None:
        return f"{url} takes no gRPC without TLS; is --tls needed, or is it another port? "
    return (
        f"no TLS with {url}; is the server's certificate signed by --ca and for this name, does it "
        "ask for a --cert, or has it no TLS? "
    )


def _channel(url: str, tls: Tls | None) -> grpc.Channel:
    import grpc

    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_NBYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_NBYTES),
        # Otherwise channels to one address share a connection.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if tls is None:
        return grpc.insecure_channel(url, options=options)
    ca, key, certificate = (
        None if path is None else path.read_bytes() for path in (tls.ca, tls.key, tls.certificate)
    )
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.secure_channel(url, credentials, options=options)


_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)
_TLS_OPTIONS = (
    click.option("--tls", "use_tls", is_flag=True, help="Speak TLS; told by the other flags too."),
    click.option("--ca", metavar="FILE", type=_PEM, help="Who signed the server's certificate."),
    click.option("--cert", metavar="FILE", type=_PEM, help="A certificate of your own, PEM."),
    click.option("--key", metavar="FILE", type=_PEM, help="Its private key, PEM."),
)


@dataclass(frozen=True)
class Connect:
    """The server that the flags name; called, it gives a client.

    It can be sent to another process.
    """

    url: str
    timeout_s: float
    tls: Tls | None = None

    def __call__(self) -> AbstractContextManager[Client]:
        return connect(self.url, self.timeout_s, self.tls)

    def channel(self) -> grpc.Channel:
        """A channel with a connection of its own."""
        return _channel(self.url, self.tls)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that say which server and how to speak to it; a function that connects."""

    @functools.wraps(command)
    def connected(
        *, url: str, timeout_s: float, use_tls: bool, ca: Path | None, cert: Path | None,
        key: Path | None, **values: Any,
    ) -> Any:  # fmt: skip
        if (cert is None) != (key is None):
            raise click.UsageError("--cert and --key need each other")
        tls = Tls(ca, cert, key) if use_tls or ca or cert else None
        return command(url=url, connect=Connect(url, timeout_s, tls), **values)

    for option in reversed((url_option, timeout_option, *_TLS_OPTIONS)):
        connected = option(connected)
    return connected
