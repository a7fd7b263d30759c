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
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from kfs import errors
from kfs.errors import ServingError
from kfs.servables.base import CallContext
from kfs.servables.pipeline.nodes import Node
from kfs.servables.pipeline.plan import Feed, Plan, Step
from kfs.servables.pipeline.shards import Shards, count_shards
from kfs.servables.pipeline.spec import DYNAMIC, ENTRY, EXIT
from kfs.signature import TensorSpec, format_shape
from kfs.tensors.arrays import StringTensor, Tensor, TensorMap

_log = logging.getLogger("kfs.pipeline")

# Helpers mostly wait for slots or for OpenVINO, so there are more than cores.
_MAX_THREADS = 32
_MAX_HELPERS = max(os.cpu_count() or 1, 4) - 1

# Sessions that took less than this are done sooner than threads are woken for them.
_MIN_HELPED_S = 200e-6

_ENDED = (errors.DEADLINE_EXCEEDED, errors.CANCELLED)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="pipeline")


def run_plan(
    plan: Plan,
    nodes: Mapping[str, Node],
    tensors: TensorMap,
    call: CallContext,
    costs_s: dict[str, float],
) -> TensorMap:
    """The outputs of a pipeline, valid until `call` is closed.

    Args:
        nodes: what each step but the request and the response runs.
        costs_s: how long a session of each step takes; learned here from request to request.

    Raises:
        ServingError: the first error of a node, with the node's name.
    """
    run = _Run(plan, nodes, call, costs_s)
    run.begin(tensors)
    return run.lead()


class _Run:
    def __init__(
        self,
        plan: Plan,
        nodes: Mapping[str, Node],
        call: CallContext,
        costs_s: dict[str, float],
    ) -> None:
        self._costs_s = costs_s
        self._plan = plan
        self._steps = plan.steps
        self._nodes = nodes
        self._call = call
        #: Shards of each demultiplexer that has run.
        self._sizes: dict[str, int] = {}
        self._results: dict[tuple[str, str], Shards] = {}
        #: For each step, how many sessions of others each of its sessions still waits for.
        self._missing: dict[str, list[int]] = {}
        self._changed = threading.Condition(threading.Lock())
        self._ready: list[tuple[Step, int]] = []
        self._n_running = 0
        self._fault: BaseException | None = None
        self._outputs: TensorMap | None = None
        self._helpers: list[Future[None]] = []

    def begin(self, tensors: TensorMap) -> None:
        """Take the request: the results of the entry."""
        entry = self._steps[ENTRY]
        for name in entry.outputs:
            self._result(entry, name).put(0, tensors[name], borrowed=False)
        with self._changed:
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
        while (task := self._next(leads=leads)) is not None:
            step, index = task
            try:
                self._execute(step, index)
            except BaseException as error:
                self._fail(error)
            finally:
                with self._changed:
                    self._n_running -= 1
                    self._changed.notify_all()

    def _next(self, *, leads: bool) -> tuple[Step, int] | None:
        with self._changed:
            while not self._ready:
                if not leads or not self._n_running:
                    return None
                self._changed.wait()
            self._n_running += 1
            return self._ready.pop()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._fault is None:
                self._fault = error
            self._ready.clear()

    def _execute(self, step: Step, index: int) -> None:
        inputs = {feed.name: self._input(step, index, feed) for feed in step.feeds}
        if step.name == EXIT:
            for spec in self._plan.signature.outputs:
                _check_output(spec, inputs[spec.name])
            self._outputs = inputs
            return
        begin = time.perf_counter()
        try:
            self._call.check()
            self._run_node(step, index, inputs)
            self._learn(step, time.perf_counter() - begin)
            self._finish(step, index)
        except ServingError as error:
            if error.status in _ENDED:
                raise
            raise ServingError(
                error.status, f"Node: {step.name} {error.details}".rstrip()
            ) from error
        except Exception as error:
            _log.exception("Unexpected error in node %s", step.name)
            raise ServingError(errors.INTERNAL_ERROR, f"Node: {step.name}") from error
        if _log.isEnabledFor(logging.DEBUG):
            elapsed_us = (time.perf_counter() - begin) * 1e6
            _log.debug("Node: %s; session: %s; %.0f us",
                       step.name, self._session_key(step, index), elapsed_us)  # fmt: skip

    def _run_node(self, step: Step, index: int, inputs: TensorMap) -> None:
        places = [(item, self._result(step, alias)) for alias, item in step.outputs.items()]
        filled = set()

        def put(name: str, tensor: Tensor, borrowed: bool) -> None:
            for item, shards in places:
                if item == name:
                    shards.put(index, tensor, borrowed=borrowed)
                    filled.add(name)

        self._nodes[step.name].run(inputs, put, self._call, is_last=self._is_last(step))
        for item, _ in places:
            if item not in filled:
                raise ServingError(
                    errors.CUSTOM_NODE_OUTPUTS_CORRUPTED,
                    f"output {item} is missing",
                )

    def _is_last(self, step: Step) -> bool:
        """Whether the response waits for this session and no other: all others are done."""
        if step.consumers != (EXIT,):
            return False
        missing = self._missing.get(EXIT)
        return (self._n_awaited(self._steps[EXIT]) if missing is None else missing[0]) == 1

    # Sessions.

    def _n_sessions(self, step: Step) -> int:
        return math.prod(self._sizes[name] for name in step.path)

    def _result(self, step: Step, alias: str) -> Shards:
        key = (step.name, alias)
        found = self._results.get(key)
        if found is None:
            made = Shards(self._n_sessions(step), gathered=alias in step.gathered)
            found = self._results.setdefault(key, made)  # atomic: the first one made is used
        return found

    def _input(self, step: Step, index: int, feed: Feed) -> Tensor:
        source = self._steps[feed.source.node]
        shards = self._results[source.name, feed.source.item]
        depth = len(step.path)
        if depth > len(source.path):  # one shard of what the source demultiplexes
            parent, shard = divmod(index, self._sizes[source.name])
            whole = shards.at(parent)
            assert not isinstance(whole, StringTensor)  # count_shards refused it
            view: Tensor = whole[shard]
            return view
        if depth == len(source.path):
            return shards.at(index)
        sizes = [self._sizes[name] for name in source.path[depth:]]
        return shards.gather(index * math.prod(sizes), sizes)

    def _finish(self, step: Step, index: int) -> None:
        """Count the session as done and make ready what waited for it alone."""
        if step.node.demultiply is not None:
            tensors = {alias: self._result(step, alias).at(index) for alias in step.outputs}
            count = None if step.node.demultiply == DYNAMIC else step.node.demultiply
            n_shards = count_shards(tensors, count)
        with self._changed:
            if step.node.demultiply is not None:
                self._sizes[step.name] = n_shards
            ready: list[tuple[Step, int]] = []
            for name in step.consumers:
                self._count(self._steps[name], step, index, ready)
            if self._fault is None:
                ready.reverse()  # the last one is taken first
                self._ready += ready
            if not any(self._is_long(other) for other, _ in ready[:1] + ready[-1:]):
                return
            n_helpers = min(len(self._ready) - 1, _MAX_HELPERS - len(self._helpers))
            for _ in range(n_helpers):
                self._helpers.append(_pool().submit(self._work, leads=False))

    def _learn(self, step: Step, elapsed_s: float) -> None:
        """Down at once, up slowly: sessions that wait for others seem long."""
        known = self._costs_s.get(step.name, elapsed_s)
        self._costs_s[step.name] = min(elapsed_s, 0.9 * known + 0.1 * elapsed_s)

    def _is_long(self, step: Step) -> bool:
        """Whether threads are worth waking for it; so they are for what never ran."""
        return step.name != EXIT and self._costs_s.get(step.name, 1.0) >= _MIN_HELPED_S

    def _count(self, consumer: Step, step: Step, index: int, ready: list[tuple[Step, int]]) -> None:
        missing = self._missing.get(consumer.name)
        if missing is None:
            missing = [self._n_awaited(consumer)] * self._n_sessions(consumer)
            self._missing[consumer.name] = missing
        depth = len(consumer.path)
        if depth > len(step.path):
            n_shards = self._sizes[step.name]
            awaiting = range(index * n_shards, (index + 1) * n_shards)
        else:
            block = math.prod(self._sizes[name] for name in step.path[depth:])
            awaiting = range(index // block, index // block + 1)
        for session in awaiting:
            missing[session] -= 1
            if not missing[session]:
                ready.append((consumer, session))

    def _n_awaited(self, consumer: Step) -> int:
        """How many sessions of its dependencies one session waits for."""
        depth = len(consumer.path)
        return sum(
            math.prod(self._sizes[name] for name in self._steps[dependency].path[depth:])
            for dependency in consumer.dependencies
        )

    def _session_key(self, step: Step, index: int) -> str:
        """`inner_1_outer_0`, as OpenVINO Model Server writes it."""
        parts = []
        for name in reversed(step.path):
            index, shard = divmod(index, self._sizes[name])
            parts.append(f"{name}_{shard}")
        return "_".join(parts)


def _check_output(spec: TensorSpec, tensor: Tensor) -> None:
    """What a pipeline promised of itself, its answers keep."""
    is_string = isinstance(tensor, StringTensor)
    numpy = "|O" if isinstance(tensor, StringTensor) else tensor.dtype.str
    if not spec.datatype.numpy:
        return  # passed through from the request; the server says that it cannot be sent
    if numpy != spec.datatype.numpy:
        found = "STRING" if is_string else numpy
        raise _output_fault(spec, f"precision {spec.datatype.label}", found)
    if len(tensor.shape) != len(spec.shape) or not all(
        dim.accepts(size) for dim, size in zip(spec.shape, tensor.shape, strict=True)
    ):
        raise _output_fault(spec, format_shape(spec.shape), format_shape(tensor.shape))


def _output_fault(spec: TensorSpec, expected: str, actual: str) -> ServingError:
    return ServingError(
        errors.INTERNAL_ERROR,
        f"Node: {EXIT} output: {spec.name} Expected: {expected}; Actual: {actual}",
    )
