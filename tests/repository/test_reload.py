"""A repository that lives: files and folders change while clients are served."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from site_of_models import ONES, Site, ask, plus, refusal
from wire import Stub, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.repository.repository import Repository
from kfs.repository.schema import ConfigError


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.stop()


def versions(stub: Stub, name: str) -> list[str]:
    return list(stub.ModelMetadata(pb.ModelMetadataRequest(name=name)).versions)


def test_all_models_of_a_file_are_served_and_a_broken_one_leaves_the_others(site: Site) -> None:
    site.add("one", 1)
    site.add("two", 2)
    (site.root / "broken" / "1").mkdir(parents=True)
    (site.root / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    site.models["broken"] = {"name": "broken", "base_path": "broken"}
    site.models["missing"] = {"name": "missing", "base_path": "nowhere"}
    stub = site.start()
    assert (ask(stub, "one"), ask(stub, "two")) == (1, 2)
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert refusal(lambda: ask(stub, "broken", "1"))[0] == "UNAVAILABLE"
    assert refusal(lambda: ask(stub, "missing")) == (
        "NOT_FOUND",
        "Model with requested version is not found - missing: no version is available",
    )


def spoil_shape(config: dict[str, object], folder: Path) -> None:
    config["shape"] = "(99999999999999999999,10)"


def spoil_batch(config: dict[str, object], folder: Path) -> None:
    config["batch_size"] = 99999999999999999999


def spoil_path(config: dict[str, object], folder: Path) -> None:
    config["base_path"] = "a\0b"


def lengthen_path(config: dict[str, object], folder: Path) -> None:
    config["base_path"] = "a" * 300


def nest_mapping(config: dict[str, object], folder: Path) -> None:
    (folder / "1" / "mapping_config.json").write_text("[" * 100_000)


def spoil_mapping(config: dict[str, object], folder: Path) -> None:
    (folder / "1" / "mapping_config.json").write_text('{"inputs": {"b": "\\ud800"}}')


@pytest.mark.parametrize(
    "spoil",
    [spoil_shape, spoil_batch, spoil_path, lengthen_path, nest_mapping, spoil_mapping],
    ids=lambda spoil: spoil.__name__,
)
def test_what_is_wrong_with_a_model_is_of_that_model_alone(
    site: Site, spoil: Callable[[dict[str, object], Path], None]
) -> None:
    site.add("bad", 1)
    spoil(site.models["bad"], site.root / "bad")
    site.add("good", 2)
    stub = site.start()
    assert ask(stub, "good") == 2
    site.add("later", 3)
    site.write()
    site.poll()
    assert ask(stub, "later") == 3
    assert site.server
    error = site.server.catalog.entry("bad").error
    assert error is None if spoil in (spoil_shape, spoil_batch) else error


def test_a_model_that_was_never_right_leaves_no_error_when_it_is_taken_out(site: Site) -> None:
    site.add("good", 1)
    site.models["bad"] = {"name": "bad", "base_path": "bad", "layout": "NN"}
    site.start()
    assert site.server
    assert site.server.catalog.entry("bad").error
    del site.models["bad"]
    site.write()
    site.poll()
    assert site.server.catalog.entry("bad").error is None


def test_versions_come_and_go(site: Site) -> None:
    site.add("m", 1, model_version_policy={"latest": {"num_versions": 2}})
    stub = site.start()
    plus(site.root / "m" / "2", 2)
    site.poll()
    assert versions(stub, "m") == ["1", "2"]
    plus(site.root / "m" / "3", 3)
    site.poll()
    assert versions(stub, "m") == ["2", "3"]
    assert (ask(stub, "m"), ask(stub, "m", "2")) == (3, 2)
    assert refusal(lambda: ask(stub, "m", "1")) == (
        "NOT_FOUND", "Model with requested version is retired - m: version 1",
    )  # fmt: skip
    shutil.rmtree(site.root / "m" / "3")
    site.poll()
    assert (ask(stub, "m"), ask(stub, "m", "1")) == (2, 1)
    shutil.rmtree(site.root / "m")
    site.poll()
    assert refusal(lambda: ask(stub, "m"))[1].startswith(
        "Model with requested version is not found"
    )


def test_it_is_told_why_nothing_is_served_though_nothing_failed(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    (site.root / "empty").mkdir()
    site.models["empty"] = {"name": "empty", "base_path": "empty"}
    site.add("m", version=3, model_version_policy={"specific": {"versions": [1, 2]}})
    site.start()
    site.poll()  # which tells nothing anew
    told = [line.getMessage() for line in caplog.records if line.levelname == "WARNING"]
    assert told == [
        f"No version found for model in path: {site.root / 'empty'}; expected folders with numbers "
        "for names: 1, 2, ...",
        "model m: model_version_policy takes none of the versions that are there: 3",
    ]


def test_an_older_version_is_served_until_the_newest_can_be_loaded(site: Site) -> None:
    site.add("m", 1)
    (site.root / "m" / "2").mkdir()
    stub = site.start()
    assert ask(stub, "m") == 1
    assert not stub.ModelReady(pb.ModelReadyRequest(name="m", version="2")).ready
    (site.root / "m" / "2").rmdir()
    plus(site.root / "m" / "2", 2)
    site.poll()
    assert ask(stub, "m") == 2
    assert refusal(lambda: ask(stub, "m", "1"))[1].startswith("Model with requested version is ret")


def test_models_are_added_replaced_and_removed(site: Site) -> None:
    site.add("stays", 1)
    site.add("goes", 2)
    stub = site.start()
    assert site.server
    kept = site.server.catalog.find("stays", "").servable
    del site.models["goes"]
    site.add("comes", 3)
    site.write()
    site.poll()
    assert (ask(stub, "stays"), ask(stub, "comes")) == (1, 3)
    assert refusal(lambda: ask(stub, "goes"))[0] == "NOT_FOUND"
    assert site.server.catalog.find("stays", "").servable is kept, "it was not loaded again"
    site.models["stays"]["shape"] = "(2,10)"
    site.write()
    site.poll()
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="stays"))
    assert list(metadata.inputs[0].shape) == [2, 10]


def test_a_broken_file_changes_nothing_and_says_why(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.add("m", 1)
    stub = site.start()
    assert site.server
    site.write('{"model_config_list": [')
    site.poll()
    site.poll()
    assert ask(stub, "m") == 1
    assert "is not JSON" in str(site.server.repository.reload_error)
    assert caplog.text.count("Nothing is changed") == 1
    site.write()
    site.poll()
    assert site.server.repository.reload_error is None


def test_a_file_that_is_nested_too_deeply_changes_nothing(site: Site) -> None:
    site.add("m", 1)
    stub = site.start()
    site.write("[" * 100_000)
    plus(site.root / "m" / "2", 2)
    for _ in range(2):
        site.poll()
    assert ask(stub, "m") == 2, "versions are looked at as before"
    assert site.server
    assert "is not JSON" in (site.server.repository.reload_error or "")


def test_what_cannot_be_replaced_goes_on_as_it_was_and_is_tried_again(site: Site) -> None:
    site.add("m", 1)
    stub = site.start()
    site.models["m"]["shape"] = {"told": "(1,10)"}
    site.write()
    for _ in range(2):
        site.poll()
        assert site.server
        assert ask(stub, "m") == 1
        (line,) = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
        assert (line.version, line.state) == ("1", "READY")
        assert line.reason == "model m, version 1: shape of told: the model has only b"
    (site.root / "m" / "1" / "mapping_config.json").write_text('{"inputs": {"b": "told"}}')
    site.poll()
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="m"))
    assert [spec.name for spec in metadata.inputs] == ["told"]
    assert site.server.catalog.entry("m").error is None


def test_an_option_that_cannot_be_read_leaves_the_model_as_it_was(site: Site) -> None:
    site.add("m", 1)
    stub = site.start()
    assert site.server
    site.models["m"]["layout"] = "NN"
    site.models["new"] = {"name": "new", "base_path": "m", "layout": "NN"}
    site.write()
    for _ in range(2):
        site.poll()
        assert ask(stub, "m") == 1
        m, new = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
        assert (m.state, new.state) == ("READY", "UNAVAILABLE")
        assert m.reason.startswith("m: layout: expected")
        assert new.reason.startswith("new: layout: expected")
    del site.models["m"]["layout"], site.models["new"]["layout"]
    site.write()
    site.poll()
    assert ask(stub, "new") == 1
    assert not any(m.reason for m in stub.RepositoryIndex(pb.RepositoryIndexRequest()).models)


@pytest.mark.parametrize("place", ["missing", "empty", "broken"])
def test_a_model_goes_on_from_its_old_place_until_the_new_one_has_it(
    site: Site, place: str
) -> None:
    site.add("m", 1)
    stub = site.start()
    assert site.server
    if place != "missing":
        (site.root / "other").mkdir()
    if place == "broken":
        (site.root / "other" / "2").mkdir()
    site.models["m"]["base_path"] = "other"
    site.write()
    for _ in range(2):
        site.poll()
        assert ask(stub, "m") == 1
    shutil.rmtree(site.root / "other", ignore_errors=True)
    plus(site.root / "other" / "2", 2)
    site.poll()
    assert ask(stub, "m") == 2
    assert refusal(lambda: ask(stub, "m", "1"))[0] == "NOT_FOUND"


def test_a_broken_file_ends_the_start(site: Site) -> None:
    site.add("m", 1)
    site.models["m"]["nireq"] = "many"
    with pytest.raises(ConfigError, match=r"model_config_list\[0\]\.config\.nireq"):
        site.start()


def test_a_stream_keeps_what_it_started_with(site: Site) -> None:
    site.add("m", 1)
    stub = site.start()
    assert site.server
    entry = site.server.catalog.find("m", "")
    replaced = threading.Event()

    def requests() -> Iterator[object]:
        yield infer_request("m", raw=ONES.tobytes())
        replaced.wait(30)
        yield infer_request("m", raw=ONES.tobytes())

    answers = stub.stream(requests())
    assert next(answers).infer_response.model_version == "1"
    plus(site.root / "m" / "2", 2)
    site.poll()
    assert ask(stub, "m") == 2
    assert entry.state.name == "UNLOADING"
    replaced.set()
    assert next(answers).infer_response.model_version == "1"
    assert list(answers) == []
    wait_until(lambda: entry.state.name == "END")


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        threading.Event().wait(0.005)


def test_health_follows_what_is_served(site: Site) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    site.add("m", 1)
    site.start()
    health = health_pb2_grpc.HealthStub(site.channel)

    def serving() -> bool:
        answer = health.Check(health_pb2.HealthCheckRequest(service="m"))
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    assert serving()
    shutil.rmtree(site.root / "m")
    site.poll()
    assert not serving()
    plus(site.root / "m" / "5", 5)
    site.poll()
    assert serving()


def test_changes_are_picked_up_within_the_interval(site: Site) -> None:
    site.add("m", 1)
    stub = site.start(poll_wait_s=0.05)
    plus(site.root / "m" / "2", 2)
    wait_until(lambda: ask(stub, "m") == 2)


def test_no_request_fails_while_everything_is_reloaded(site: Site) -> None:
    """New versions, changed options, new and removed neighbours, under load from four clients."""
    site.add("m", 7)
    stub = site.start()
    done = threading.Event()
    served = [0]

    def hammer() -> None:
        while not done.is_set():
            assert ask(stub, "m") == 7
            served[0] += 1

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(hammer) for _ in range(4)]
        try:
            for number in range(2, 40):
                if number % 3:
                    plus(site.root / "m" / str(number), 7)
                if number % 3 == 0:
                    site.models["m"]["nireq"] = number
                if number % 5 == 0:
                    site.add(f"n{number}", number)
                elif number % 5 == 2 and number > 5:
                    del site.models[f"n{number - 2}"]
                site.write()
                site.poll()
        finally:
            done.set()
        for client in clients:
            client.result()
    assert served[0] > 100
    assert site.server
    entries = site.server.catalog.entry("m").versions.values()
    assert sum(entry.servable is not None for entry in entries) == 1, "the others were unloaded"


def test_what_wants_to_exit_leaves_the_thread_that_looks(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Semaphore(0)

    def poll(repository: Repository) -> None:
        looked.release()
        raise SystemExit(3)

    site.add("one", 1)
    monkeypatch.setattr(Repository, "poll", poll)
    site.start(poll_wait_s=0.01)
    for _ in range(2):
        assert looked.acquire(timeout=30)


def test_what_could_not_be_loaded_and_is_gone_is_retired(site: Site) -> None:
    site.add("m", 1)
    site.add("n", 1)
    for name in ("m", "n"):
        broken = site.root / name / "2"
        broken.mkdir()
        (broken / "model.xml").write_text("no model")
        (broken / "model.bin").touch()
    stub = site.start()
    assert refusal(lambda: ask(stub, "m", "2"))[0] == "UNAVAILABLE"
    shutil.rmtree(site.root / "m" / "2")
    del site.models["n"]
    site.write()
    site.poll()
    for name in ("m", "n"):
        code, details = refusal(lambda name=name: ask(stub, name, "2"))
        assert (code, "is retired" in details) == ("NOT_FOUND", True)
    assert ask(stub, "m") == 1
    assert [model.reason for model in stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
            if model.reason] == []  # fmt: skip
