"""The generated messages, against the definition they are generated from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pb2

from kfs._proto import calculator_graph_pb2 as graph_pb
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs._proto import health_list_pb2 as list_pb

PROTO = Path(__file__).parents[1] / "proto"


@pytest.mark.parametrize(
    "generated", [pb, list_pb, graph_pb], ids=["predict", "health list", "graph"]
)
def test_generated_code_is_not_stale(tmp_path: Path, generated: ModuleType) -> None:
    """Regenerate with `python proto/generate.py` when this fails."""
    protoc = pytest.importorskip("grpc_tools.protoc")
    described = tmp_path / "described.pb"
    known = Path(protoc.__file__).parent / "_proto"
    protoc.main(
        [
            "",
            f"-I{PROTO}",
            f"-I{known}",
            f"--descriptor_set_out={described}",
            generated.DESCRIPTOR.name,
        ]
    )
    files = descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes())
    found = descriptor_pb2.FileDescriptorProto.FromString(generated.DESCRIPTOR.serialized_pb)
    forget_json_names(files.file[0].message_type)  # protoc writes them into this form only
    assert files.file[0] == found


def forget_json_names(messages: Iterable[descriptor_pb2.DescriptorProto]) -> None:
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        for field in message.extension:
            field.ClearField("json_name")
        forget_json_names(message.nested_type)


def test_the_messages_live_beside_those_of_tritonclient() -> None:
    from tritonclient.grpc import service_pb2

    theirs = service_pb2.ModelInferRequest(model_name="m", id="1")
    theirs.parameters["priority"].uint64_param = 3
    theirs.parameters["scale"].double_param = 0.5
    ours = pb.ModelInferRequest.FromString(theirs.SerializeToString())
    assert ours.parameters["priority"].uint64_param == 3
    assert ours.parameters["scale"].double_param == 0.5
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(
        deterministic=True
    )
