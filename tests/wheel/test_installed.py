"""A small suite against an installed wheel: it needs pytest and the package, nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kfs
from kfs._fast.response import write_response
from kfs._fast.wire import read_request
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.servables.pipeline import INCLUDE_FOLDER


def test_the_package_says_that_it_has_types() -> None:
    assert (Path(kfs.__file__).parent / "py.typed").exists()


def test_the_header_of_custom_nodes_is_there() -> None:
    assert (INCLUDE_FOLDER / "kfs" / "custom_node.h").exists()


def test_the_hot_path_reads_and_writes() -> None:
    message = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"1234"])
    request = read_request(message.SerializeToString())
    assert (request.model_name, request.n_raw) == ("m", 1)
    response = write_response("m", "1", "", [("a", "FP32", (1,), b"1234")])
    assert pb.ModelInferResponse.FromString(response).raw_output_contents == [b"1234"]


def test_the_demo_classifies_digits() -> None:
    command = [str(Path(sys.executable).with_name("kfs-fast")), "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "of 12 correct" in done.stdout
