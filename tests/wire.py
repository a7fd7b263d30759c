"""A client below the client libraries: messages or bytes in, messages out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import grpc

from kfs._proto import grpc_predict_v2_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"


def _to_bytes(message: object) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()  # type: ignore[attr-defined]


class Stub:
    """One method per RPC; a request is a message or the bytes of one."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        for name in ("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata",
                     "ModelInfer", "RepositoryIndex"):  # fmt: skip
            answer = getattr(pb, f"{name}Response")
            call = channel.unary_unary(
                SERVICE + name,
                request_serializer=_to_bytes,
                response_deserializer=answer.FromString,
            )
            setattr(self, name, call)
        self._stream = channel.stream_stream(
            SERVICE + "ModelStreamInfer",
            request_serializer=_to_bytes,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )

    def stream(self, requests: Iterable[object]) -> Iterator[pb.ModelStreamInferResponse]:
        return self._stream(iter(requests), timeout=30)


class Sink:
    """Keeps what a stream answers, where there is no transport."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def fail(self, error: BaseException) -> None:
        raise error


def infer_request(
    model: str,
    name: str = "b",
    datatype: str = "FP32",
    shape: Sequence[int] = (1, 10),
    *,
    raw: bytes | None = None,
    version: str = "",
    id: str = "",
    **contents: object,
) -> pb.ModelInferRequest:
    """A request with one input: raw when given, else with the given contents fields."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=id)
    tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


def in_shared_memory(model: str, name: str = "b") -> pb.ModelInferRequest:
    """A request as Triton's clients send it when they left the values in a region they share."""
    request = infer_request(model, name)
    request.inputs[0].parameters["shared_memory_region"].string_param = "region"
    return request
