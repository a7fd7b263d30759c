"""What a question about the server or a model costs beside the transport.

    pytest bench/server

From the message as it came to the message as it goes; "protobuf" reads the same question and
writes the same answer, ready-made, so the rest is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.digits import MODEL_NAME, MODEL_PATH
from kfs.repository.catalog import Catalog
from kfs.servables.model import Model
from kfs.server.control import ControlHandler
from kfs.settings import ModelSettings

WHO = ["ours", "protobuf"]


@pytest.fixture(scope="module")
def handler() -> ControlHandler:
    catalog = Catalog()
    catalog.add_name(MODEL_NAME)
    entry = catalog.begin(MODEL_NAME, 1)
    folder = Path(MODEL_PATH)
    catalog.publish(MODEL_NAME, entry, Model(ModelSettings(MODEL_NAME, folder), 1, folder / "1"))
    return ControlHandler(catalog, lambda: True)


def ask(benchmark: Any, who: str, question: Any, answer: Callable[[Any], Any]) -> Any:
    data = question.SerializeToString()
    ready_made = answer(question)
    reply = answer if who == "ours" else lambda question: ready_made
    return benchmark(lambda: reply(type(question).FromString(data)).SerializeToString())


@pytest.mark.parametrize("who", WHO)
def test_server_ready(benchmark: Any, handler: ControlHandler, who: str) -> None:
    found = ask(benchmark, who, pb.ServerReadyRequest(), handler.server_ready)
    assert pb.ServerReadyResponse.FromString(found).ready


@pytest.mark.parametrize("who", WHO)
def test_model_ready(benchmark: Any, handler: ControlHandler, who: str) -> None:
    found = ask(benchmark, who, pb.ModelReadyRequest(name=MODEL_NAME), handler.model_ready)
    assert pb.ModelReadyResponse.FromString(found).ready


@pytest.mark.parametrize("who", WHO)
def test_model_metadata(benchmark: Any, handler: ControlHandler, who: str) -> None:
    question = pb.ModelMetadataRequest(name=MODEL_NAME)
    found = ask(benchmark, who, question, handler.model_metadata)
    assert pb.ModelMetadataResponse.FromString(found).name == MODEL_NAME
