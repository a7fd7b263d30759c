"""Liveness, readiness, metadata, health and reflection."""

from __future__ import annotations

from pathlib import Path

import grpc
import models
import numpy as np
import pytest
import tritonclient.grpc as triton
from conftest import ServeModels, loopback, wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from openvino import opset13 as op
from wire import Stub, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs._proto import health_list_pb2 as list_pb
from kfs.cli.app import Server
from kfs.server import health
from kfs.settings import ModelSettings


def test_the_server_is_live_and_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()


def test_server_metadata(client: triton.InferenceServerClient) -> None:
    metadata = client.get_server_metadata()
    assert metadata.name == "kfs-fast"
    assert metadata.version
    assert not metadata.extensions


def test_the_port_is_open_before_models_load(repository: Path) -> None:
    server = Server(loopback(ModelSettings("dummy", repository / "dummy")))
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = Stub(channel)
            assert stub.ServerLive(pb.ServerLiveRequest(), timeout=30).live
            assert not stub.ServerReady(pb.ServerReadyRequest(), timeout=30).ready
            server.load()
            assert stub.ServerReady(pb.ServerReadyRequest(), timeout=30).ready
    finally:
        server.stop(0)


@pytest.mark.parametrize("version", ["", "1"])
def test_a_loaded_model_is_ready(stub: Stub, version: str) -> None:
    request = pb.ModelReadyRequest(name="dummy", version=version)
    assert stub.ModelReady(request, timeout=30).ready


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
@pytest.mark.parametrize(
    ("name", "version", "code", "text"),
    [
        ("nope", "", "NOT_FOUND", "Model with requested name is not found - nope"),
        ("", "", "NOT_FOUND", "Model with requested name is not found"),
        ("nope", "x", "NOT_FOUND", "Model with requested name is not found - nope"),
        ("dummy", "0", "NOT_FOUND", "Model with requested version is not found"),
        ("dummy", "-1", "NOT_FOUND", "Model with requested version is not found"),
        ("dummy", "7", "NOT_FOUND", "Model with requested version is not found"),
        ("dummy", "01", "INVALID_ARGUMENT", "invalid model version format in request"),
        ("dummy", "x", "INVALID_ARGUMENT", "invalid model version format in request"),
    ],
)
def test_what_is_not_there(
    stub: Stub, method: str, name: str, version: str, code: str, text: str
) -> None:
    request = getattr(pb, f"{method}Request")(name=name, version=version)
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(request, timeout=30)
    assert caught.value.code().name == code
    assert caught.value.details().startswith(text)


def test_model_metadata(stub: Stub) -> None:
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="add_two"), timeout=30)
    assert metadata.name == "add_two"
    assert list(metadata.versions) == ["1"]
    assert metadata.platform == "OpenVINO"
    tensors = [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs]
    assert tensors == [("input1", "FP32", [1, 10]), ("input2", "FP32", [1, 10])]
    assert [t.name for t in metadata.outputs] == ["difference", "sum"]


@pytest.mark.parametrize(
    ("model", "datatype", "shape"),
    [
        ("dynamic", "FP32", [-1, -1]),
        ("scalar", "FP32", []),
        ("strings", "BYTES", [-1]),
        ("image", "FP32", [1, 8, 6, 3]),
        *[(f"identity_{name}", name, [-1, -1]) for name in models.NUMERIC],
    ],
)
def test_metadata_of_an_input(stub: Stub, model: str, datatype: str, shape: list[int]) -> None:
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name=model), timeout=30)
    assert metadata.inputs[0].datatype == datatype
    assert list(metadata.inputs[0].shape) == shape


def test_a_bfloat16_input_is_told_but_not_served(serve: ServeModels, tmp_path: Path) -> None:
    node = models.parameter("input", [1, 2], "bf16")
    models.save(tmp_path / "1", [node], {"input": node})
    server = serve(ModelSettings("half", tmp_path))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = Stub(channel)
        metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="half"), timeout=30)
        assert metadata.inputs[0].datatype == "BF16"
        with pytest.raises(grpc.RpcError, match="precision BF16, which cannot be sent") as caught:
            stub.ModelInfer(infer_request("half", "input", "BF16", [1, 2], raw=b"1234"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_bfloat16_output_is_told_but_not_served(serve: ServeModels, tmp_path: Path) -> None:
    node = models.parameter("input", [1, 2], "f32")
    outputs = {"half": op.convert(node, "bf16"), "whole": op.negative(node)}
    models.save(tmp_path / "1", [node], outputs)
    server = serve(ModelSettings("half", tmp_path))
    values = np.array([[1.5, -2]], np.float32)
    request = infer_request("half", "input", shape=[1, 2], raw=values.tobytes())
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = Stub(channel)
        metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="half"), timeout=30)
        assert {output.name: output.datatype for output in metadata.outputs} == {
            "half": "BF16",
            "whole": "FP32",
        }
        for wanted in ([], ["half"], ["whole", "half"]):
            asking = pb.ModelInferRequest()
            asking.CopyFrom(request)
            for name in wanted:
                asking.outputs.add(name=name)
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(asking, timeout=30)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == (
                "Unsupported serialization precision - Output half has the precision BF16, "
                "which cannot be sent"
            )
        request.outputs.add(name="whole")
        response = stub.ModelInfer(request, timeout=30)
        assert response.raw_output_contents == [(-values).tobytes()]


def test_health_of_the_server_and_of_every_servable(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "dummy"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nope"), timeout=30)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    call = channel.unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=list_pb.HealthListRequest.SerializeToString,
        response_deserializer=list_pb.HealthListResponse.FromString,
    )
    listed = call(list_pb.HealthListRequest(), timeout=30)
    assert {"", "dummy", "strings"} <= set(listed.statuses)


def test_who_watches_the_health_hears_of_changes_until_the_server_stops(
    serve: ServeModels, repository: Path
) -> None:
    server = serve(ModelSettings("dummy", repository / "dummy"))
    request = health_pb2.HealthCheckRequest
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        whole = stub.Watch(request())
        later = stub.Watch(request(service="later"))
        gone = stub.Watch(request(service="dummy"))
        assert next(gone).status == health.SERVING
        gone.cancel()
        assert next(whole).status == health.SERVING
        assert next(later).status == health.SERVICE_UNKNOWN
        server._health.set_servable("later", serving=True)
        assert next(later).status == health.SERVING
        server.stop(grace_s=60)  # which does not wait for them
        for watch in (whole, later):
            assert next(watch).status == health.NOT_SERVING
            with pytest.raises(grpc.RpcError):
                next(watch)


def test_more_watches_than_are_allowed_are_refused(
    monkeypatch: pytest.MonkeyPatch, serve: ServeModels
) -> None:
    monkeypatch.setattr(health, "MAX_WATCHES", 1)
    server = serve()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        first = stub.Watch(health_pb2.HealthCheckRequest())
        next(first)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.Watch(health_pb2.HealthCheckRequest()))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.cancel()

        def is_let_in() -> bool:
            try:
                return bool(next(stub.Watch(health_pb2.HealthCheckRequest())))
            except grpc.RpcError:
                return False

        wait_until(is_let_in)


def test_reflection_describes_the_services(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    }
    file = database.FindFileContainingSymbol("inference.ModelInferRequest")
    assert "ModelStreamInferResponse" in [message.name for message in file.message_type]
