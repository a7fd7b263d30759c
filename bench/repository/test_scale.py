"""What 500 servables cost those who use one: `pytest bench/repository`.

Latency of a request with 1 and with 500 models loaded, and the time that a look at the disk and a
change of one model take.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op
from pytest_benchmark.fixture import BenchmarkFixture

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.repository.catalog import Catalog
from kfs.repository.config import read_config
from kfs.repository.repository import Repository
from kfs.servables.base import CallContext
from kfs.server.infer import InferHandler
from kfs.settings import ModelSettings


class Site:
    """A repository with a number of models from one config.json."""

    def __init__(self, folder: Path, count: int) -> None:
        self.config = folder / "config.json"
        self.nireq = [1] * count
        b = op.parameter([1, 16], np.float32, name="b")
        b.output(0).set_names({"b"})
        model = ov.Model([op.result(op.add(b, np.float32(1)), name="a")], [b])
        (folder / "model" / "1").mkdir(parents=True)
        ov.save_model(model, folder / "model" / "1" / "model.xml")
        for index in range(count):
            (folder / f"m{index}").symlink_to("model")  # a look at each, as if they were many
        self.write()
        catalog = Catalog()
        self.handler = InferHandler(catalog)
        defaults = replace(ModelSettings("", ""), plugin_config={"INFERENCE_NUM_THREADS": 1})
        self.repository = Repository(
            catalog,
            lambda: read_config(self.config, defaults),
            self.config,
            lambda name, serving: None,
        )
        self.repository.load()

    def write(self) -> None:
        models = [
            {"config": {"name": f"m{index}", "base_path": f"m{index}", "nireq": nireq}}
            for index, nireq in enumerate(self.nireq)
        ]
        self.config.write_text(json.dumps({"model_config_list": models}))


@pytest.fixture(scope="module", params=[1, 500], ids=["1 model", "500 models"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"), request.param)


def test_a_request(benchmark: BenchmarkFixture, site: Site) -> None:
    request = pb.ModelInferRequest(model_name="m0", raw_input_contents=[bytes(64)])
    request.inputs.add(name="b", datatype="FP32", shape=[1, 16])
    data = request.SerializeToString()
    benchmark(lambda: site.handler.infer(data, CallContext()))


def test_a_look_at_the_disk(benchmark: BenchmarkFixture, site: Site) -> None:
    benchmark(site.repository.poll)


def test_a_change_of_one_model(benchmark: BenchmarkFixture, site: Site) -> None:
    def change() -> None:
        site.nireq[0] = 3 - site.nireq[0]
        site.write()

    benchmark.pedantic(site.repository.poll, setup=change, rounds=20)
