"""Looking up servables while they are replaced, and what is remembered of those that were."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping

import pytest

from kfs.errors import ServingError
from kfs.metrics.registry import Metrics
from kfs.metrics.servables import RequestMetrics
from kfs.repository.catalog import Catalog
from kfs.repository.unloads import Unloads
from kfs.servables.base import CallContext, Servable
from kfs.signature import Signature
from kfs.tensors.arrays import NOWHERE, Array, TensorMap

N_REPLACEMENTS = 3000


class Nothing(Servable):
    """A servable without tensors, whose loading takes no time."""

    def __init__(self, version: int) -> None:
        self.name = "m"
        self.version = version
        self.signature = Signature.of([], [])
        self.is_loaded = True

    def infer(
        self, tensors: TensorMap, call: CallContext, places: Mapping[str, Array] = NOWHERE
    ) -> TensorMap:
        return {}

    def unload(self) -> None:
        self.is_loaded = False


@pytest.fixture
def busy_threads() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def publish(catalog: Catalog, version: int) -> None:
    catalog.publish("m", catalog.begin("m", version), Nothing(version))


def lease(catalog: Catalog) -> None:
    with catalog.lease("m", "", CallContext()) as servable:
        assert isinstance(servable, Nothing)
        assert servable.is_loaded


def find(catalog: Catalog) -> None:
    assert catalog.find_available("m", "")[1] is not None


@pytest.mark.parametrize("look_up", [lease, find])
@pytest.mark.parametrize("replace", ["same version", "next version"])
def test_what_is_replaced_is_always_there(
    busy_threads: None, look_up: Callable[[Catalog], None], replace: str
) -> None:
    catalog = Catalog()
    publish(catalog, 1)
    done = threading.Event()

    def replace_all() -> None:
        for number in range(N_REPLACEMENTS):
            if replace == "same version":
                publish(catalog, 1)
                continue
            before = catalog.find("m", "")
            publish(catalog, 1 + (number + 1) % 2)
            before.retire()
        done.set()

    writer = threading.Thread(target=replace_all)
    writer.start()
    try:
        while not done.is_set():
            look_up(catalog)
    finally:
        writer.join()


def test_of_versions_that_have_ended_the_last_hundred_are_remembered() -> None:
    catalog = Catalog()
    metrics = Metrics({"ovms_requests_success"})
    for version in range(1, 301):
        before = catalog.available("m")
        counts = RequestMetrics(metrics, "m", version)
        catalog.publish("m", catalog.begin("m", version, metrics=counts), Nothing(version))
        for entry in before.values():
            entry.retire()
    with pytest.raises(ServingError, match="retired"):
        catalog.lease("m", "299", CallContext())
    with pytest.raises(ServingError, match="not found"):
        catalog.lease("m", "100", CallContext())
    assert len(catalog.snapshot["m"].versions) <= 102
    text = metrics.expose()
    assert b'version="299"' in text
    assert b'version="100"' not in text
    assert catalog.lease("m", "", CallContext()).servable.version == 300


def test_what_fails_to_unload_ends_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Nothing):
        def unload(self) -> None:
            raise SystemExit(3)

    catalog = Catalog()
    ended = threading.Event()
    entry = catalog.begin("m", 1)
    entry.on_end = ended.set
    catalog.publish("m", entry, Failing(1))
    entry.retire()
    assert catalog.unloads.wait(30)
    assert ended.is_set()
    assert "Unexpected error while something was unloaded" in caplog.text


def test_nothing_is_left_of_what_is_unloaded_when_that_is_done(busy_threads: None) -> None:
    unloads = Unloads()
    for _ in range(500):
        servable = Nothing(1)
        gone = threading.Event()
        weakref.finalize(servable, gone.set)
        unloads.begin(servable.unload)
        del servable
        assert unloads.wait(30)
        assert gone.is_set()
