"""Any sequence of changes to files and folders, with calls in between and meanwhile.

What is served is always what the files wanted at the last look, as far as it can be loaded.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from conftest import wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from site_of_models import Site, ask, plus, refusal

EXAMPLES = max(int(os.environ.get("KFS_HYPOTHESIS_EXAMPLES", "300")) // 30, 5)
NAMES = ["one", "two"]
POLICIES: list[dict[str, Any]] = [
    {"latest": {"num_versions": 1}},
    {"latest": {"num_versions": 2}},
    {"all": {}},
    {"specific": {"versions": [1, 3, 5]}},
]
#: Of another model in the same place, or of none: no such property exists.
OPTIONS: list[dict[str, Any]] = [{"nireq": 1}, {"nireq": 2}, {"plugin_config": {"NO_SUCH": 1}}]
BROKEN = ["", "{", '{"model_config_list": 3}', '{"model_config_list": [{"config": {"name": "o']

Versions = frozenset[int]


def is_choosable(policy: dict[str, Any], version: int) -> bool:
    return "specific" not in policy or version in policy["specific"]["versions"]


def chosen(policy: dict[str, Any], versions: Versions) -> Versions:
    found = sorted(version for version in versions if is_choosable(policy, version))
    return frozenset(found[-policy["latest"]["num_versions"] :] if "latest" in policy else found)


class Reload(RuleBasedStateMachine):
    """A server, and beside it what it ought to serve."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.site = Site(Path(self.folder.name))
        self.stub = self.site.start()
        self.n_versions = 0
        #: Versions in the folders, and those of them that are no models.
        self.there: dict[str, set[int]] = {name: set() for name in NAMES}
        self.broken: set[int] = set()
        #: What the server knows of the file, and what it serves.
        self.applied: dict[str, dict[str, Any]] = {}
        self.served: dict[str, Versions] = dict.fromkeys(NAMES, frozenset())
        #: What each version that is served was loaded with.
        self.made_of: dict[tuple[str, int], dict[str, Any]] = {}
        self.is_file_broken = False
        #: Whatever was in a file that was read.
        self.known: set[str] = set()

    def teardown(self) -> None:
        self.site.stop()
        self.folder.cleanup()

    # What an operator does

    @initialize()
    def begin(self) -> None:
        self.add_version("one")
        self.configure("one", POLICIES[0], OPTIONS[0])
        self.look()

    @rule(name=st.sampled_from(NAMES))
    def add_version(self, name: str) -> None:
        self.n_versions += 1
        plus(self.site.root / name / str(self.n_versions), self.n_versions)
        self.there[name].add(self.n_versions)

    @rule(name=st.sampled_from(NAMES))
    def add_version_that_is_no_model(self, name: str) -> None:
        self.n_versions += 1
        folder = self.site.root / name / str(self.n_versions)
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"no model")
        self.there[name].add(self.n_versions)
        self.broken.add(self.n_versions)

    @precondition(lambda self: any(self.there.values()))
    @rule(data=st.data())
    def remove_version(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name in NAMES if self.there[name]]))
        version = data.draw(st.sampled_from(sorted(self.there[name])))
        shutil.rmtree(self.site.root / name / str(version))
        self.there[name].remove(version)

    @rule(name=st.sampled_from(NAMES))
    def remove_folder(self, name: str) -> None:
        shutil.rmtree(self.site.root / name, ignore_errors=True)
        self.there[name].clear()

    @rule(
        name=st.sampled_from(NAMES),
        policy=st.sampled_from(POLICIES),
        options=st.sampled_from(OPTIONS),
    )
    def configure(self, name: str, policy: dict[str, Any], options: dict[str, Any]) -> None:
        config = {"name": name, "base_path": name, "model_version_policy": policy, **options}
        self.site.models[name] = config
        self.write()

    @rule(name=st.sampled_from(NAMES))
    def leave_out(self, name: str) -> None:
        self.site.models.pop(name, None)
        self.write()

    @rule()
    def write(self) -> None:
        self.site.write()
        self.is_file_broken = False

    @rule(text=st.sampled_from(BROKEN))
    def write_a_broken_file(self, text: str) -> None:
        self.site.write(text)
        self.is_file_broken = True

    # What the server does

    @rule()
    def look(self) -> None:
        """Poll, while clients ask for all that is served before and after."""
        wanted = self.applied if self.is_file_broken else dict(self.site.models)
        after = {name: self.expected(name, wanted) for name in NAMES}
        anew = {
            (name, version)
            for name in wanted
            for version in self.served[name] & after[name]
            if not self.is_current(name, version, wanted[name]) and self.is_loadable(wanted[name])
        }
        before = self.servables()
        with self.clients(after):
            self.site.poll()
        now = self.servables()
        for name, version in before.keys() & now.keys():
            kept = before[name, version] is now[name, version]
            is_anew = (name, version) in anew
            assert kept != is_anew, "loaded again if its options changed, only then"
        self.made_of = {
            (name, version): self.made_of[name, version]
            if (name, version) in before and (name, version) not in anew
            else wanted[name]
            for name, versions in after.items()
            for version in versions
        }
        self.applied, self.served = wanted, after
        self.known |= wanted.keys()

    def expected(self, name: str, wanted: dict[str, dict[str, Any]]) -> Versions:
        if name not in wanted:
            return frozenset()
        config, there = wanted[name], self.there[name]
        served = self.served[name] & there
        policy = config["model_version_policy"]
        current = {version for version in served if self.is_current(name, version, config)}
        can_be = current | (there - self.broken if self.is_loadable(config) else set())
        # What cannot be replaced goes on as it was.
        kept = {version for version in served - can_be if is_choosable(policy, version)}
        return chosen(policy, frozenset(can_be)) | kept

    def is_current(self, name: str, version: int, config: dict[str, Any]) -> bool:
        same = {"model_version_policy": None}
        return {**self.made_of[name, version], **same} == {**config, **same}

    def is_loadable(self, config: dict[str, Any]) -> bool:
        return "plugin_config" not in config

    def servables(self) -> dict[tuple[str, int], object]:
        assert self.site.server
        return {
            (name, version): found.servable
            for name, entry in self.site.server.catalog.snapshot.items()
            for version, found in entry.versions.items()
            if found.is_available
        }

    @contextmanager
    def clients(self, after: dict[str, Versions]) -> Iterator[None]:
        names = [name for name in NAMES if self.served[name] and after[name]]
        done = threading.Event()

        def keep_asking(name: str) -> None:
            while not done.is_set():
                assert ask(self.stub, name) in self.served[name] | after[name]

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(keep_asking, name) for name in names]
            try:
                yield
            finally:
                done.set()
            for client in asking:
                client.result()

    # What is always true

    @invariant()
    def everything_served_answers(self) -> None:
        for name, versions in self.served.items():
            for version in versions:
                assert ask(self.stub, name, str(version)) == version
            if versions:
                assert ask(self.stub, name) == max(versions)
            else:
                assert refusal(lambda name=name: ask(self.stub, name))[0] == "NOT_FOUND"

    @invariant()
    def nothing_else_is_loaded(self) -> None:
        assert self.site.server
        for name, entry in self.site.server.catalog.snapshot.items():
            versions = entry.versions
            assert {v for v in versions if versions[v].is_available} == self.served[name]
            for version in versions.keys() - self.served[name]:
                wait_until(lambda entry=versions[version]: entry.servable is None)  # type: ignore[misc]

    @invariant()
    def health_says_the_same(self) -> None:
        health = health_pb2_grpc.HealthStub(self.site.channel)
        for name, versions in self.served.items():
            ask_health = partial(health.Check, health_pb2.HealthCheckRequest(service=name))
            if name not in self.known:
                assert refusal(ask_health)[0] == "NOT_FOUND"
            else:
                is_serving = ask_health().status == health_pb2.HealthCheckResponse.SERVING
                assert is_serving == bool(versions)


Reload.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestReload = Reload.TestCase
