"""Metrics: calls are made, then the HTTP port is scraped and counted."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import loopback, wait_until
from graphs.graph_site import Talk, add_graph, add_models, dummy_graph, request
from pipelines.pipes import entry, model
from prometheus_client.parser import text_string_to_metric_families
from server_process import server_process
from site_of_models import ONES, Site, ask, refusal
from wire import Stub, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli import cli
from kfs.cli.app import Server, StartError
from kfs.metrics.families import BUCKETS_US, DEFAULT, FAMILIES
from kfs.metrics.registry import expose_shared
from kfs.repository.schema import ConfigError
from kfs.settings import ModelSettings

Labels = dict[str, str]

KSERVE = {"api": "KServe", "interface": "gRPC"}
M1 = {"name": "m", "version": "1"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.stop()


def start(site: Site, *names: str) -> Stub:
    return site.start(rest_port=0, metrics=frozenset(names) or DEFAULT)


def get(server: Server | None, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, type and body."""
    assert server
    assert server.rest_port
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers["Content-Type"], body


class Scrape:
    """What /metrics says at one time."""

    def __init__(self, site: Site) -> None:
        status, kind, self.text = get(site.server, "/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                # The parser ends the names of counters with _total where they do not.
                name = re.sub("^(ovms_.*)_total$", r"\1", sample.name)
                self.samples[name, frozenset(sample.labels.items())] = sample.value

    def value(self, name: str, labels: Labels) -> float:
        return self.samples[name, frozenset(labels.items())]

    def requests(self, outcome: str, method: str, name: str = "m", version: str = "1") -> float:
        labels = {**KSERVE, "method": method, "name": name}
        if method != "ModelReady":
            labels["version"] = version
        return self.value(f"ovms_requests_{outcome}", labels)

    def named(self, name: str) -> list[Labels]:
        return [dict(labels) for found, labels in self.samples if found == name]


def test_every_series_of_a_version_is_there_from_the_start(site: Site) -> None:
    site.add("m", 1)
    start(site)
    scrape = Scrape(site)
    for method in ("ModelInfer", "ModelMetadata", "ModelReady"):
        assert scrape.requests("success", method) == scrape.requests("fail", method) == 0
    assert scrape.value("ovms_request_time_us_count", {"interface": "gRPC", **M1}) == 0
    assert scrape.value("ovms_inference_time_us_count", M1) == 0
    assert scrape.value("ovms_wait_for_infer_req_time_us_count", M1) == 0
    assert scrape.value("ovms_current_requests", M1) == 0
    assert scrape.value("ovms_streams", M1) >= 1
    assert scrape.value("kfs_config_last_reload_successful", {}) == 1
    assert not scrape.named("ovms_infer_req_queue_size")  # only when it is asked for


def test_names_and_kinds_are_those_that_dashboards_know(site: Site) -> None:
    site.add("m", 1)
    start(site, *FAMILIES)
    text = Scrape(site).text
    for family in FAMILIES.values():
        assert f"# TYPE {family.name} {family.kind}\n" in text
    assert "ovms_requests_success_total" not in text
    assert "_created" not in text
    assert (
        'ovms_requests_success{api="KServe",interface="gRPC",method="ModelReady",name="m"} 0.0'
    ) in text


def test_buckets_grow_by_the_factor_of_1_8(site: Site) -> None:
    site.add("m", 1)
    start(site)
    labels = Scrape(site).named("ovms_inference_time_us_bucket")
    bounds = sorted(float(found["le"]) for found in labels)
    assert bounds == [*map(float, BUCKETS_US), float("inf")]
    assert len(BUCKETS_US) == 33
    assert BUCKETS_US[:10] == (10, 18, 32, 58, 104, 188, 340, 612, 1101, 1983)
    assert BUCKETS_US[-1] == 1474755971


def test_requests_are_counted_by_what_became_of_them(site: Site) -> None:
    site.add("m", 1)
    stub = start(site)
    for _ in range(5):
        ask(stub, "m")
    for _ in range(3):
        refusal(lambda: stub.ModelInfer(infer_request("m", shape=[1, 9], raw=ONES.tobytes())))
    for _ in range(2):
        stub.ModelMetadata(pb.ModelMetadataRequest(name="m"))
    stub.ModelReady(pb.ModelReadyRequest(name="m"))
    scrape = Scrape(site)
    assert (scrape.requests("success", "ModelInfer"), scrape.requests("fail", "ModelInfer")) == (
        5, 3,
    )  # fmt: skip
    assert scrape.requests("success", "ModelMetadata") == 2
    assert scrape.requests("success", "ModelReady") == 1
    assert scrape.value("ovms_request_time_us_count", {"interface": "gRPC", **M1}) == 5
    assert scrape.value("ovms_request_time_us_sum", {"interface": "gRPC", **M1}) > 0
    assert scrape.value("ovms_inference_time_us_count", M1) == 5
    assert scrape.value("ovms_wait_for_infer_req_time_us_count", M1) == 5
    assert scrape.value("ovms_current_requests", M1) == 0


def test_what_names_nothing_is_counted_nowhere(site: Site) -> None:
    site.add("m", 1)
    stub = start(site)
    before = Scrape(site).samples
    refusal(lambda: ask(stub, "nobody"))
    refusal(lambda: ask(stub, "m", "7"))
    refusal(lambda: stub.ModelReady(pb.ModelReadyRequest(name="nobody")))
    refusal(lambda: stub.ModelInfer(b"\xff\xff"))
    assert Scrape(site).samples == before


def test_a_version_that_is_not_ready_is_an_answer_and_its_metadata_a_failure(site: Site) -> None:
    site.add("m", 1)
    (site.root / "broken" / "1").mkdir(parents=True)
    (site.root / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    site.models["broken"] = {"name": "broken", "base_path": "broken"}
    stub = start(site)
    assert not stub.ModelReady(pb.ModelReadyRequest(name="broken", version="1")).ready
    refusal(lambda: stub.ModelMetadata(pb.ModelMetadataRequest(name="broken", version="1")))
    scrape = Scrape(site)
    assert scrape.requests("success", "ModelReady", "broken") == 1
    assert scrape.requests("fail", "ModelMetadata", "broken") == 1


def test_messages_of_a_stream_are_requests_too(site: Site) -> None:
    site.add("m", 1)
    stub = start(site)
    good = infer_request("m", raw=ONES.tobytes())
    assert len(list(stub.stream([good, b"\xff", good]))) == 3
    scrape = Scrape(site)
    assert scrape.requests("success", "ModelInferStream") == 2
    assert scrape.value("ovms_request_time_us_count", {"interface": "gRPC", **M1}) == 2


def test_gauges_follow_versions_as_they_are_replaced_and_retired(site: Site) -> None:
    site.add("m", 1, nireq=3, plugin_config={"NUM_STREAMS": "2"})
    start(site, *FAMILIES)
    assert Scrape(site).value("ovms_streams", M1) == 2
    assert Scrape(site).value("ovms_infer_req_queue_size", M1) == 3
    site.models["m"]["nireq"] = 5
    site.write()
    site.poll()
    assert Scrape(site).value("ovms_infer_req_queue_size", M1) == 5
    del site.models["m"]
    site.write()
    site.poll()
    scrape = Scrape(site)
    assert scrape.value("ovms_streams", M1) == scrape.value("ovms_infer_req_queue_size", M1) == 0
    assert scrape.requests("success", "ModelInfer") == 0


def test_a_model_that_requests_reshape_has_as_many_slots_as_before(site: Site) -> None:
    site.add("m", 1, nireq=3, shape="auto")
    stub = start(site, "ovms_infer_req_queue_size", "ovms_streams")
    n_streams = Scrape(site).value("ovms_streams", M1)
    for n_rows in 2, 3:
        raw = np.ones((n_rows, 10), np.float32).tobytes()
        stub.ModelInfer(infer_request("m", shape=[n_rows, 10], raw=raw), timeout=30)
        assert Scrape(site).value("ovms_infer_req_queue_size", M1) == 3
        assert Scrape(site).value("ovms_streams", M1) == n_streams


def test_a_config_that_cannot_be_read_is_told(site: Site) -> None:
    site.add("m", 1)
    start(site)
    site.write("{")
    site.poll()
    assert Scrape(site).value("kfs_config_last_reload_successful", {}) == 0
    site.write()
    site.poll()
    assert Scrape(site).value("kfs_config_last_reload_successful", {}) == 1


def test_waiting_and_refused_requests_are_told(site: Site, slow: Path) -> None:
    site.models["slow"] = {"name": "slow", "base_path": str(slow), "nireq": 1}
    few = ModelSettings("", "", max_waiting_calls=1)
    stub = site.start(rest_port=0, metrics=frozenset(FAMILIES), defaults=few)
    ones = np.ones((600, 600), np.float32)
    message = infer_request("slow", shape=ones.shape, raw=ones.tobytes())
    labels = {"name": "slow", "version": "1"}
    with ThreadPoolExecutor(8) as pool:
        seen = threading.Event()

        def call() -> str:
            try:
                stub.ModelInfer(message, timeout=60)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        calls = [pool.submit(call) for _ in range(8)]
        while not all(future.done() for future in calls):
            scrape = Scrape(site)
            if scrape.value("kfs_waiting_requests", labels) and scrape.value(
                "ovms_infer_req_active", labels
            ):
                seen.set()
        results = [future.result() for future in calls]
    assert seen.is_set()
    refused = results.count("RESOURCE_EXHAUSTED")
    assert refused
    scrape = Scrape(site)
    assert scrape.value("kfs_refused_requests_total", labels) == refused
    assert scrape.value("kfs_waiting_requests", labels) == 0
    assert scrape.value("ovms_infer_req_active", labels) == 0


def test_a_pipeline_counts_and_so_do_the_models_of_its_nodes(site: Site) -> None:
    site.add("m", 1)
    nodes = [model("first", "m", {"a": "a"}, b="request.b")]
    site.pipelines = [entry(["b"], nodes, name="p", a="first.a")]
    stub = start(site)
    ask(stub, "p")
    refusal(lambda: stub.ModelInfer(infer_request("p", shape=[1, 9], raw=ONES.tobytes())))
    scrape = Scrape(site)
    assert scrape.requests("success", "ModelInfer", "p") == 1
    assert scrape.requests("fail", "ModelInfer", "p") == 1
    labels = {"interface": "gRPC", "name": "p", "version": "1"}
    assert scrape.value("ovms_request_time_us_count", labels) == 1
    assert scrape.value("ovms_inference_time_us_count", M1) == 1
    assert scrape.requests("success", "ModelInfer", "m") == 0


def graph_value(scrape: Scrape, family: str, method: str) -> float:
    return scrape.value(f"ovms_{family}", {**KSERVE, "method": method, "name": "g"})


def test_unary_requests_to_a_graph_are_counted(site: Site) -> None:
    add_models(site)
    add_graph(site, "g", dummy_graph())
    stub = start(site)
    stub.ModelInfer(request("g", **{"in": np.ones((1, 10))}))
    refusal(lambda: stub.ModelInfer(request("g", other=np.ones((1, 10)))))
    refusal(lambda: stub.ModelInfer(request("g", **{"in": np.ones((1, 9))})))
    scrape = Scrape(site)
    assert graph_value(scrape, "requests_accepted", "ModelInfer") == 2
    assert graph_value(scrape, "requests_rejected", "ModelInfer") == 1
    assert graph_value(scrape, "responses", "ModelInfer") == 1
    assert graph_value(scrape, "graph_error", "ModelInfer") == 1
    time = {"method": "ModelInfer", "name": "g"}
    assert scrape.value("ovms_graph_processing_time_us_count", time) == 2
    assert scrape.value("ovms_current_graphs", {"name": "g"}) == 0
    assert scrape.value("ovms_inference_time_us_count", {"name": "dummy", "version": "1"}) == 1


def test_streams_on_a_graph_are_counted(site: Site) -> None:
    add_models(site)
    add_graph(site, "g", dummy_graph())
    stub = start(site)
    talk = Talk(stub)
    for _ in range(3):
        talk.say(request("g", **{"in": np.ones((1, 10))}))
        talk.hear_values()
    assert Scrape(site).value("ovms_current_graphs", {"name": "g"}) == 1
    talk.say(request("g", other=np.ones((1, 10))))
    assert talk.hear().error_message
    assert talk.rest() == []
    wait_until(lambda: Scrape(site).value("ovms_current_graphs", {"name": "g"}) == 0)
    scrape = Scrape(site)
    assert graph_value(scrape, "requests_accepted", "ModelInferStream") == 3
    assert graph_value(scrape, "requests_rejected", "ModelInferStream") == 1
    assert graph_value(scrape, "responses", "ModelInferStream") == 3
    assert graph_value(scrape, "graph_error", "ModelInferStream") == 0


def test_only_the_families_of_a_list_are_offered(site: Site) -> None:
    site.add("m", 1)
    site.monitoring = {"metrics": {"enable": True, "metrics_list": ["ovms_requests_success"]}}
    stub = site.start(rest_port=0)
    ask(stub, "m")
    scrape = Scrape(site)
    assert {name for name, _ in scrape.samples} == {"ovms_requests_success"}
    assert scrape.requests("success", "ModelInfer") == 1


@pytest.mark.parametrize(
    ("monitoring", "text"),
    [
        ({"metrics": {"enable": True}}, "rest_port setting is missing, metrics are enabled on"),
        ({"metrics": {"metrics_list": []}}, "monitoring.metrics: metrics_list needs enable"),
        (
            {"metrics": {"enable": True, "metrics_list": ["ovms_nothing"]}},
            "monitoring.metrics.metrics_list: Invalid name in metrics_list - ovms_nothing",
        ),
        ({"metrics": {"enabled": True}}, "monitoring.metrics.enabled: this key is not allowed"),
    ],
)
def test_a_config_that_asks_for_what_is_not_to_be_had(
    site: Site, monitoring: dict[str, object], text: str
) -> None:
    site.monitoring = monitoring
    with pytest.raises(ConfigError, match=text):
        site.start()


def test_metrics_are_enabled_in_one_place_only(site: Site) -> None:
    site.monitoring = {"metrics": {"enable": True}}
    with pytest.raises(ConfigError, match="enabled on the command line as well"):
        start(site)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--metrics_enable"], "rest_port setting is missing, metrics are enabled on rest port"),
        (["--metrics_list", "ovms_streams"], "--metrics_list needs --metrics_enable"),
        (["--metrics_list", "ovms_nothing"], "Invalid name in metrics_list - ovms_nothing"),
        (["--port", "8123", "--rest_port", "8123"], "they have to differ"),
    ],
)
def test_flags_that_do_not_go_together(flags: list[str], text: str) -> None:
    result = CliRunner().invoke(cli, ["serve", *flags])
    assert result.exit_code
    assert text in result.output


def test_without_metrics_the_port_has_probes_alone(site: Site) -> None:
    site.add("m", 1)
    site.start(rest_port=0)
    assert get(site.server, "/metrics")[0] == 404
    assert json.loads(get(site.server, "/metrics")[2]) == {"error": "Invalid request URL"}
    assert get(site.server, "/v2/health/live")[0] == 200
    assert get(site.server, "/v2/models/m/infer")[0] == 404
    assert get(site.server, "/v2/health/live", "POST")[0] == 405
    assert get(site.server, "/v2/health/live", "HEAD") == (200, "application/json", "")


def test_ready_is_told_once_models_are_loaded_and_until_the_server_stops(
    site: Site, slow: Path
) -> None:
    site.models["slow"] = {"name": "slow", "base_path": str(slow), "nireq": 1}
    stub = site.start(rest_port=0)
    assert site.server
    server = site.server
    assert get(server, "/v2/health/ready")[0] == 200
    ones = np.ones((600, 600), np.float32)
    call = stub.ModelInfer.future(infer_request("slow", shape=ones.shape, raw=ones.tobytes()))
    wait_until(lambda: bool(server.catalog.entry("slow").versions[1].leases))
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    wait_until(lambda: call.done() or get(server, "/v2/health/ready")[0] == 503)
    call.result()
    stopping.join()


def test_the_port_is_open_before_the_models_are_loaded(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.add("m", 1)
    site.write()
    settings = replace(
        loopback(),
        config_path=tmp_path / "config.json",
        rest_port=0,
        rest_bind_address=("127.0.0.1", "127.0.0.2"),
    )
    server = Server(settings)
    server.start()
    try:
        assert get(server, "/v2/health/live")[0] == 200
        assert get(server, "/v2/health/ready") == (503, "application/json", '{"ready": false}')
        server.load()
        assert get(server, "/v2/health/ready") == (200, "application/json", '{"ready": true}')
    finally:
        server.stop(0)


@pytest.mark.parametrize("variable", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_the_folder_of_metrics_of_another_program_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "gone"))
    flags = {"metrics_enable": "true", "rest_port": 0}
    with server_process(tmp_path / "log", **flags) as served:
        served.wait_until_ready()


def test_a_process_that_was_killed_as_it_began_to_count_keeps_nobody_from_looking(
    tmp_path: Path,
) -> None:
    (tmp_path / "counter_1.db").touch()
    assert expose_shared(str(tmp_path)) == b""


def test_a_port_that_is_taken_is_told(site: Site) -> None:
    site.start(rest_port=0)
    assert site.server
    other = Server(replace(site.server.settings, rest_port=site.server.rest_port))
    with pytest.raises(StartError, match="for HTTP: is the port in use"):
        other.start()
    other.stop(0)


def test_clients_that_only_connect_do_not_keep_probes_from_answering(site: Site) -> None:
    site.start(rest_port=0)
    assert site.server
    assert site.server.rest_port
    idle = [http.client.HTTPConnection("127.0.0.1", site.server.rest_port) for _ in range(50)]
    try:
        for connection in idle:
            connection.connect()
            connection.sock.sendall(b"GET /metr")
        assert get(site.server, "/v2/health/live")[0] == 200
    finally:
        for connection in idle:
            connection.close()
