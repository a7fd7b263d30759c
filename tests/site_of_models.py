"""A config.json with models beside it, and a server that polls when it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import models
import numpy as np
import pytest
from conftest import loopback
from openvino import opset13 as op
from wire import Stub, infer_request

from kfs.cli.app import Server

ONES = np.ones((1, 10), np.float32)


def plus(folder: Path, number: int, *, shape: tuple[int, ...] = (1, 10)) -> None:
    """b -> a = b + number; the folder appears at once, with everything in it."""
    making = folder.parent.parent / f"making-{threading.get_ident()}"
    b = models.parameter("b", shape, "f32")
    models.save(making, [b], {"a": op.add(b, op.constant(np.float32(number)))})
    folder.parent.mkdir(parents=True, exist_ok=True)
    making.rename(folder)


class Site:
    """A config.json with models beside it, and a server that polls when it is told to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.models: dict[str, dict[str, Any]] = {}
        self.graphs: dict[str, dict[str, Any]] = {}
        self.pipelines: list[dict[str, Any]] | None = None
        self.libraries: dict[str, str] | None = None
        self.monitoring: dict[str, Any] | None = None
        self.server: Server | None = None
        self.channel: grpc.Channel | None = None

    def write(self, text: str | None = None) -> None:
        document: dict[str, Any] = {
            "model_config_list": [{"config": config} for config in self.models.values()]
        }
        if self.graphs:
            document["mediapipe_config_list"] = list(self.graphs.values())
        if self.pipelines is not None:
            document["pipeline_config_list"] = self.pipelines
        if self.libraries is not None:
            document["custom_node_library_config_list"] = [
                {"name": name, "base_path": path} for name, path in self.libraries.items()
            ]
        if self.monitoring is not None:
            document["monitoring"] = self.monitoring
        path = self.root / "config.json"
        path.with_suffix(".new").write_text(json.dumps(document) if text is None else text)
        path.with_suffix(".new").rename(path)

    def add(self, name: str, number: int = 0, version: int = 1, **config: Any) -> None:
        plus(self.root / name / str(version), number)
        self.models[name] = {"name": name, "base_path": name, **config}

    def start(self, poll_wait_s: float = 0, **settings: Any) -> Stub:
        self.write()
        told = replace(
            loopback(),
            config_path=self.root / "config.json",
            poll_wait_s=poll_wait_s,
            rest_bind_address=("127.0.0.1",),
            **settings,
        )
        self.server = Server(told)
        self.server.__enter__()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.port}")
        return Stub(self.channel)

    def poll(self) -> None:
        assert self.server
        self.server.repository.poll()

    def stop(self) -> None:
        if self.channel is not None:
            self.channel.close()
        if self.server is not None:
            self.server.stop(0)


def ask(stub: Stub, name: str, version: str = "") -> float:
    """What the model adds to 1."""
    request = infer_request(name, raw=ONES.tobytes())
    request.model_version = version
    answer = stub.ModelInfer(request, timeout=30)
    return float(np.frombuffer(answer.raw_output_contents[0], np.float32)[0]) - 1


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()
