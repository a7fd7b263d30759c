"""What is counted of each servable; every series is there, with the value 0, once it is loaded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from kfs.metrics.registry import Metrics

_KSERVE = {"api": "KServe", "interface": "gRPC"}
_INFER = ("ModelInfer", "ModelInferStream")
_ASK = ("ModelMetadata", "ModelReady")

_REFUSED = "kfs_refused_requests_total"

_NONE = Metrics()


def elapsed_us(begin: float) -> float:
    """Microseconds since `begin`, a value of `time.perf_counter`."""
    return (time.perf_counter() - begin) * 1e6


def infer_method(*, stream: bool) -> str:
    """The name, among labels, of the method that a request came with."""
    return _INFER[stream]


class ServableMetrics:
    """What is counted of whatever has a name; nothing, unless a kind of servable says more."""

    def count(self, method: str, *, failed: bool = False) -> None:
        """Count one answered or failed request: ModelInfer, ModelMetadata, ModelReady, ..."""

    def observe_request(self, begin: float) -> None:
        """Count how long a successful inference request took that began at `begin`."""

    def refuse(self) -> None:
        """Count a request that is refused because there are too many already."""

    def forget(self) -> None:
        """Offer these counts no longer."""


class RequestMetrics(ServableMetrics):
    """Requests to a model or a pipeline."""

    def __init__(self, metrics: Metrics, name: str, version: int) -> None:
        self._metrics, self._name, self._version = metrics, name, str(version)
        success, fail = (
            {
                method: metrics.series(
                    family,
                    **_KSERVE,
                    method=method,
                    name=name,
                    # Whether a model is ready is asked of its name.
                    version="" if method == "ModelReady" else str(version),
                )
                for method in (*_INFER, *_ASK)
            }
            for family in ("ovms_requests_success", "ovms_requests_fail")
        )
        self._requests = {False: success, True: fail}
        self._request_time = metrics.series(
            "ovms_request_time_us", interface="gRPC", name=name, version=str(version)
        )
        self._refused = metrics.series(_REFUSED, name=name, version=str(version))

    def count(self, method: str, *, failed: bool = False) -> None:
        self._requests[failed][method].inc()

    def observe_request(self, begin: float) -> None:
        self._request_time.observe(elapsed_us(begin))

    def refuse(self) -> None:
        self._refused.inc()

    def forget(self) -> None:
        self._metrics.forget(name=self._name, version=self._version)


class ModelMetrics(RequestMetrics):
    """A version of a model: what requests do, and what its slots do."""

    def __init__(self, metrics: Metrics = _NONE, name: str = "", version: int = 1) -> None:
        super().__init__(metrics, name, version)
        labels = {"name": name, "version": str(version)}
        self.inference_time = metrics.series("ovms_inference_time_us", **labels)
        self.wait_time = metrics.series("ovms_wait_for_infer_req_time_us", **labels)
        self.streams = metrics.series("ovms_streams", **labels)
        self.current = metrics.series("ovms_current_requests", **labels)
        self.slots = metrics.series("ovms_infer_req_queue_size", **labels)
        self.active = metrics.series("ovms_infer_req_active", **labels)
        self.waiting = metrics.series("kfs_waiting_requests", **labels)


class GraphMetrics(ServableMetrics):
    """A graph; its requests are told apart by the method they came with."""

    def __init__(self, metrics: Metrics = _NONE, name: str = "") -> None:
        accepted, rejected, responses, errors = (
            {
                method: metrics.series(family, **_KSERVE, method=method, name=name)
                for method in _INFER
            }
            for family in (
                "ovms_requests_accepted", "ovms_requests_rejected", "ovms_responses",
                "ovms_graph_error",
            )
        )  # fmt: skip
        self.accepted, self.rejected = accepted, rejected
        self.responses, self.errors = responses, errors
        self._refused = metrics.series(_REFUSED, name=name, version="1")
        self._current = metrics.series("ovms_current_graphs", name=name)
        self._processing_time = {
            method: metrics.series("ovms_graph_processing_time_us", method=method, name=name)
            for method in _INFER
        }

    def refuse(self) -> None:
        self._refused.inc()

    @contextmanager
    def in_process(self, method: str) -> Iterator[None]:
        """One instance of the graph, from its start to its end; an exception is its failure."""
        begin = time.perf_counter()
        self._current.inc()
        try:
            yield
        except BaseException:
            self.errors[method].inc()
            raise
        finally:
            self._current.dec()
            self._processing_time[method].observe(elapsed_us(begin))
