"""Running a plan: one request, all its sessions.

A session is one step for one combination of shards of the demultiplexers it runs within, numbered
row-major over their sizes. The calling thread leads: it runs what is ready, depth first, so a
chain never changes threads. Where more than one session is ready, threads of a shared pool help.
No thread waits for one that is busy elsewhere, and none waits for a session while it holds a
slot, so nothing can lock up, however few slots and threads there are.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from functools import cache

from kfs import errors
from kfs.errors import ServingError
from kfs.helpers import Helpers
from kfs.servables.base import CallContext
from kfs.servables.checks import datatype_label, has_datatype
from kfs.servables.pipeline.nodes import Node
from kfs.servables.pipeline.plan import Feed, Plan, Step
from kfs.servables.pipeline.shards import Shards, count_shards
from kfs.servables.pipeline.spec import DYNAMIC, ENTRY, EXIT
from kfs.signature import TensorSpec, format_shape
from kfs.tensors.arrays import NOWHERE, Array, StringTensor, Tensor, TensorMap

_log = logging.getLogger("kfs.pipeline")

# Helpers mostly wait for slots or for OpenVINO, so there are more than cores.
_MAX_THREADS = 32
_MAX_HELPERS = max(os.cpu_count() or 1, 4) - 1

# Sessions that cost less than this are done sooner than threads are woken for them.
_MIN_HELPED_S = 200e-6
# Time that passed counts for a tenth of computing: a device or a disk is worth helpers too, but
# waiting for a slot or the interpreter, which helpers would only lengthen, mostly is not.
_WAITING_WEIGHT = 0.1

_ENDED = (errors.DEADLINE_EXCEEDED, errors.CANCELLED)


@cache
def _pool() -> Helpers:
    return Helpers(_MAX_THREADS, thread_name_prefix="pipeline")


def run_plan(
    plan: Plan,
    nodes: Mapping[str, Node],
    tensors: TensorMap,
    call: CallContext,
    costs_s: dict[str, float],
    places: Mapping[str, Array] = NOWHERE,
) -> TensorMap:
    """The outputs of a pipeline, valid until `call` is closed.

    Args:
        nodes: what each step but the request and the response runs.
        costs_s: what a session of each step costs; learned here from request to request.
        places: where some outputs are wanted; nothing writes there once this has returned.

    Raises:
        ServingError: the first error of a node, with the node's name.
    """
    run = _Run(plan, nodes, call, costs_s, places)
    run.begin(tensors)
    return run.lead()


class _Run:
    def __init__(
        self,
        plan: Plan,
        nodes: Mapping[str, Node],
        call: CallContext,
        costs_s: dict[str, float],
        places: Mapping[str, Array],
    ) -> None:
        self._costs_s = costs_s
        self._plan = plan
        self._steps = plan.steps
        self._nodes = nodes
        self._call = call
        self._places = places
        self._is_debug = _log.isEnabledFor(logging.DEBUG)
        #: Shards of each demultiplexer that has run.
        self._sizes: dict[str, int] = {}
        #: By step and alias.
        self._results: dict[str, dict[str, Shards]] = {}
        #: For each step, how many sessions of others each of its sessions still waits for.
        self._missing: dict[str, list[int]] = {}
        self._lock = threading.Lock()
        #: The leader waits on it; nobody else waits.
        self._changed = threading.Condition(self._lock)
        self._is_waiting = False
        self._ready: list[tuple[Step, int]] = []
        self._n_running = 0
        self._fault: BaseException | None = None
        self._outputs: TensorMap | None = None
        self._helpers: list[Future[None]] = []
        self._n_helpers = 0

    def begin(self, tensors: TensorMap) -> None:
        """Take the request: the results of the entry."""
        entry = self._steps[ENTRY]
        for name, shards in self._results_of(entry).items():
            shards.put(0, tensors[name], borrowed=False)
        for name, step in self._steps.items():
            if not step.dependencies and name != ENTRY:
                self._ready.append((step, 0))
        try:
            self._finish(entry, 0)
        except ServingError as error:
            raise ServingError(error.status, f"Node: {ENTRY} {error.details}".rstrip()) from None

    def lead(self) -> TensorMap:
        """Work until the response is there, or the first error and nothing runs any more."""
        try:
            self._work(leads=True)
        finally:
            for helper in self._helpers:
                helper.cancel()
        if self._fault is not None:
            try:
                raise self._fault
            finally:
                self._fault = None  # its traceback leads here: a circle would keep tensors alive
        if self._outputs is None:
            raise ServingError(errors.INTERNAL_ERROR, f"{EXIT} was not reached")
        return self._outputs

    def _work(self, *, leads: bool) -> None:
        task = self._next(leads=leads, has_run=False)
        while task is not None:
            try:
                self._execute(*task)
            except BaseException as error:
                self._fail(error)
            task = self._next(leads=leads, has_run=True)

    def _next(self, *, leads: bool, has_run: bool) -> tuple[Step, int] | None:
        with self._lock:
            if has_run:
                self._n_running -= 1
            while not self._ready:
                if leads and self._n_running:
                    self._is_waiting = True
                    self._changed.wait()
                    self._is_waiting = False
                    continue
                if not leads:
                    self._n_helpers -= 1
                self._wake_leader()
                return None
            self._n_running += 1
            return self._ready.pop()

    def _wake_leader(self) -> None:
        if self._is_waiting:
            self._changed.notify()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._fault is None:
                self._fault = error
            self._ready.clear()

    def _execute(self, step: Step, index: int) -> None:
        inputs = {feed.name: self._input(step, index, feed) for feed in step.feeds}
        name = step.name
        if name == EXIT:
            for spec in self._plan.signature.outputs:
                _check_output(spec, inputs[spec.name])
            self._outputs = inputs
            return
        try:
            self._call.check()
            if self._is_debug or (self._plan.is_parallel and index == 0):
                self._measure(step, index, inputs)
            else:
                self._run_node(step, index, inputs)
            self._finish(step, index)
        except ServingError as error:
            if error.status in _ENDED:
                raise
            raise ServingError(error.status, f"Node: {name} {error.details}".rstrip()) from error
        except BaseException as error:
            _log.exception("Unexpected error in node %s", name)
            raise ServingError(errors.INTERNAL_ERROR, f"Node: {name}") from error

    def _run_node(self, step: Step, index: int, inputs: TensorMap) -> None:
        shards = self._results.get(step.name) or self._results_of(step)
        results = _SessionResults(step, index, shards)
        self._nodes[step.name].run(inputs, results, self._call, is_last=self._is_last(step))

    def _measure(self, step: Step, index: int, inputs: TensorMap) -> None:
        """Run it, learn what it costs, and tell it to those who debug."""
        began, began_cpu = time.perf_counter(), time.thread_time()
        self._run_node(step, index, inputs)
        elapsed_s = time.perf_counter() - began
        cost_s = max(time.thread_time() - began_cpu, _WAITING_WEIGHT * elapsed_s)
        # Down at once, up slowly: one that was interrupted seems long.
        known = self._costs_s.get(step.name, cost_s)
        self._costs_s[step.name] = min(cost_s, 0.9 * known + 0.1 * cost_s)
        if self._is_debug:
            _log.debug("Node: %s; session: %s; %.0f us",
                       step.name, self._session_key(step, index), elapsed_s * 1e6)  # fmt: skip

    def _is_last(self, step: Step) -> bool:
        """Whether the response waits for this session and no other: all others are done."""
        if step.consumers != (EXIT,):
            return False
        missing = self._missing.get(EXIT)
        return (self._n_awaited(self._steps[EXIT]) if missing is None else missing[0]) == 1

    # Sessions.

    def _n_sessions(self, path: tuple[str, ...]) -> int:
        """How many there are within the demultiplexers of `path`."""
        return math.prod([self._sizes[name] for name in path]) if path else 1

    def _results_of(self, step: Step) -> dict[str, Shards]:
        n_sessions = self._n_sessions(step.path)
        made = {
            alias: Shards(
                n_sessions,
                gathered=alias in step.gathered,
                place=self._place_of(step, alias) if self._places else None,
            )
            for alias in step.outputs
        }
        return self._results.setdefault(step.name, made)  # atomic: the first one made is used

    def _place_of(self, step: Step, alias: str) -> Array | None:
        """Where its results are wanted, with the sessions along a first axis."""
        for feed in self._steps[EXIT].feeds:
            if feed.source.node == step.name and feed.source.item == alias:
                place = self._places.get(feed.name)
                sizes = tuple(self._sizes[name] for name in step.path)
                depth = len(sizes)
                if place is not None and place.shape[:depth] == sizes:
                    return place.reshape(math.prod(sizes), *place.shape[depth:])
        return None

    def _input(self, step: Step, index: int, feed: Feed) -> Tensor:
        source = self._steps[feed.source.node]
        shards = self._results[source.name][feed.source.item]
        depth, source_depth = len(step.path), len(source.path)
        if depth == source_depth:
            return shards.at(index)
        if depth < source_depth:
            sizes = [self._sizes[name] for name in source.path[depth:]]
            return shards.gather(index * math.prod(sizes), sizes)
        # One shard of what the source demultiplexes.
        parent, shard = divmod(index, self._sizes[source.name])
        whole = shards.at(parent)
        assert not isinstance(whole, StringTensor)  # count_shards refused it
        view: Tensor = whole[shard]
        return view

    def _finish(self, step: Step, index: int) -> None:
        """Count the session as done and make ready what waited for it alone."""
        n_shards = None
        if step.node.demultiply is not None:
            tensors = {name: shards.at(index) for name, shards in self._results[step.name].items()}
            count = None if step.node.demultiply == DYNAMIC else step.node.demultiply
            n_shards = count_shards(tensors, count)
        with self._lock:
            if n_shards is not None:
                self._sizes[step.name] = n_shards
            ready: list[tuple[Step, int]] = []
            for name in step.consumers:
                self._count(self._steps[name], step, index, ready)
            if not ready or self._fault is not None:
                return
            ready.reverse()  # the last one is taken first
            self._ready += ready
            self._wake_leader()
            self._call_helpers(ready)

    def _call_helpers(self, ready: list[tuple[Step, int]]) -> None:
        wanted = min(len(self._ready) - 1, _MAX_HELPERS) - self._n_helpers
        if wanted <= 0 or not (self._is_long(ready[0][0]) or self._is_long(ready[-1][0])):
            return
        for _ in range(wanted):
            helper = _pool().call(self._help)
            if helper is None:
                return
            self._n_helpers += 1  # before it looks: the lock is held
            self._helpers.append(helper)

    def _help(self) -> None:
        self._work(leads=False)

    def _is_long(self, step: Step) -> bool:
        """Whether threads are worth waking for it; so they are for what never ran."""
        return step.name != EXIT and self._costs_s.get(step.name, 1.0) >= _MIN_HELPED_S

    def _count(self, consumer: Step, step: Step, index: int, ready: list[tuple[Step, int]]) -> None:
        missing = self._missing.get(consumer.name)
        if missing is None:
            missing = [self._n_awaited(consumer)] * self._n_sessions(consumer.path)
            self._missing[consumer.name] = missing
        depth, step_depth = len(consumer.path), len(step.path)
        if depth > step_depth:
            n_shards = self._sizes[step.name]
            for session in range(index * n_shards, (index + 1) * n_shards):
                missing[session] -= 1
                if not missing[session]:
                    ready.append((consumer, session))
            return
        session = index if depth == step_depth else index // self._n_sessions(step.path[depth:])
        missing[session] -= 1
        if not missing[session]:
            ready.append((consumer, session))

    def _n_awaited(self, consumer: Step) -> int:
        """How many sessions of its dependencies one session waits for."""
        depth = len(consumer.path)
        return sum(
            self._n_sessions(self._steps[dependency].path[depth:])
            for dependency in consumer.dependencies
        )

    def _session_key(self, step: Step, index: int) -> str:
        """`inner_1_outer_0`, as OpenVINO Model Server writes it."""
        parts = []
        for name in reversed(step.path):
            index, shard = divmod(index, self._sizes[name])
            parts.append(f"{name}_{shard}")
        return "_".join(parts)


class _SessionResults:
    """Where the outputs of one session go; see `nodes.Results`."""

    __slots__ = ("_index", "_shards", "_step")

    def __init__(self, step: Step, index: int, shards: Mapping[str, Shards]) -> None:
        self._step = step
        self._index = index
        self._shards = shards

    def places(self, names: Collection[str]) -> dict[str, Array]:
        return {
            item: place
            for alias, item in self._step.outputs.items()
            if item in names and (place := self._shards[alias].place(self._index)) is not None
        }

    def put(self, outputs: TensorMap, *, borrowed: bool) -> None:
        for alias, item in self._step.outputs.items():
            tensor = outputs.get(item)
            if tensor is None:
                raise ServingError(
                    errors.CUSTOM_NODE_OUTPUTS_CORRUPTED, f"output {item} is missing"
                )
            self._shards[alias].put(self._index, tensor, borrowed=borrowed)


def _check_output(spec: TensorSpec, tensor: Tensor) -> None:
    """What a pipeline promised of itself, its answers keep."""
    if not spec.datatype.numpy:
        return  # passed through from the request; the server says that it cannot be sent
    if not has_datatype(spec, tensor):
        raise _output_fault(spec, f"precision {spec.datatype.label}", datatype_label(tensor))
    if not spec.accepts(tensor.shape):
        raise _output_fault(spec, format_shape(spec.shape), format_shape(tensor.shape))


def _output_fault(spec: TensorSpec, expected: str, actual: str) -> ServingError:
    return ServingError(
        errors.INTERNAL_ERROR,
        f"Node: {EXIT} output: {spec.name} Expected: {expected}; Actual: {actual}",
    )
