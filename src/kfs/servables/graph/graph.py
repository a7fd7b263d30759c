"""A graph as a servable."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from kfs import errors
from kfs._fast.response import write_error, write_response
from kfs._fast.wire import Request
from kfs.datatypes import UNSUPPORTED
from kfs.errors import ServingError, Status
from kfs.files import check_is_file
from kfs.helpers import Helpers
from kfs.metrics.servables import GraphMetrics, infer_method
from kfs.servables.answers import check_outputs
from kfs.servables.base import (
    CallContext,
    NewContext,
    Servable,
    ServableSource,
    StreamSink,
    check_same_servable,
)
from kfs.servables.binding import check_coherency
from kfs.servables.graph.calculator import FAILURES, RESPONSE, Registry, Setting
from kfs.servables.graph.calculators import BUILTIN
from kfs.servables.graph.calculators.session import (
    OpenVINOModelServerSessionCalculator,
    servable_of,
)
from kfs.servables.graph.outline import outline_plan
from kfs.servables.graph.parameters import Clock, side_packets, timestamp_parameter
from kfs.servables.graph.plan import Plan, failures_told, make_plan
from kfs.servables.graph.prepared import Prepared
from kfs.servables.graph.request_packets import read_packet
from kfs.servables.graph.response_packets import Output, write_packet, write_response_message
from kfs.servables.graph.run import Instance
from kfs.servables.graph.spec import GraphError, parse_graph
from kfs.servables.graph.straight import run_straight
from kfs.servables.outline import Outline
from kfs.signature import Signature, TensorSpec
from kfs.tensors.arrays import NOWHERE, Array, TensorMap

_log = logging.getLogger("kfs.graph")

# Threads of one graph for the nodes of all its streams, made when first needed. A node that
# blocks keeps one; other graphs have their own.
_MAX_WORKERS = 128

registry = Registry(BUILTIN)

_STREAM = infer_method(stream=True)


class Graph(Servable):
    """A graph file, with what its nodes prepared."""

    kind = "graph"

    def __init__(self, name: str, plan: Plan, setting: Setting, metrics: GraphMetrics) -> None:
        self.name = name
        self.metrics: GraphMetrics = metrics
        self.version = 1
        self.plan = plan
        self._prepared = Prepared(plan, setting)
        self._inputs = {port.name: port for port in plan.inputs}
        self._output_names = [port.name for port in plan.outputs]
        self._workers = Helpers(_MAX_WORKERS, thread_name_prefix=f"graph-{name}")
        self.signature = Signature.of(
            [TensorSpec(port.name, UNSUPPORTED, ()) for port in plan.inputs],
            [TensorSpec(port.name, UNSUPPORTED, ()) for port in plan.outputs],
        )

    @classmethod
    def load(
        cls,
        name: str,
        path: Path,
        source: ServableSource,
        metrics: GraphMetrics | None = None,
        base_path: Path | None = None,
    ) -> Graph:
        """Read, check and prepare a graph.

        Args:
            path: the graph file.
            source: the servables that its nodes use, looked up at every inference.
            metrics: where requests are counted; None for nowhere.
            base_path: where relative paths in the file begin; None for the folder it is in.

        Raises:
            GraphError: the graph cannot be served, in one readable line.
        """
        try:
            check_is_file(path)
            # Editors put a mark in front, and comments are in whatever they were written in.
            text = path.read_text(encoding="utf-8-sig", errors="replace")
        except OSError as error:
            raise GraphError(f"graph {name}: {path}: {error.strerror}") from None
        except ValueError as error:
            raise GraphError(f"graph {name}: {path}: {error}") from None
        try:
            registry.load_plug_ins()
            plan = make_plan(parse_graph(text), registry)
            setting = Setting(path.parent if base_path is None else base_path, source)
            graph = cls(name, plan, setting, metrics or GraphMetrics())
            graph._prepare()
        except GraphError as error:
            raise GraphError(f"graph {name}: {path}: {error}") from None
        _log.info("Loaded graph %s: %d nodes", name, len(plan.nodes))
        return graph

    def _prepare(self) -> None:
        try:
            for node in self.plan.nodes:
                with failures_told(node.spec, "prepare"):
                    resource = node.calculator.prepare(node.spec, self._prepared.setting)
                self._prepared.resources.append(resource)
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        # After a failure, these are only the first ones.
        for node, resource in zip(self.plan.nodes, self._prepared.resources, strict=False):
            try:
                node.calculator.release(resource)
            except FAILURES:
                _log.exception("Unexpected error when node %s was released", node.spec.name)
        self._prepared.resources.clear()
        self._workers.shutdown(wait=False)

    def outline(self) -> Outline:
        return outline_plan(self.name, self.plan)

    def needs(self) -> Iterator[tuple[str, str]]:
        for node in self.plan.nodes:
            if node.calculator is OpenVINOModelServerSessionCalculator:
                yield servable_of(node.spec)

    def unload(self) -> None:
        self._release()
        _log.info("Unloaded graph %s", self.name)

    def infer(
        self, tensors: TensorMap, call: CallContext, places: Mapping[str, Array] = NOWHERE
    ) -> TensorMap:
        """Graphs answer requests alone: packets are more than tensors."""
        raise ServingError(errors.INTERNAL_ERROR, f"{self.name} is a graph")

    # Unary calls.

    def _answer(self, request: Request, call: CallContext, *, stream: bool) -> bytes:
        method = infer_method(stream=stream)
        try:
            check_outputs(request, self._output_names)
            sides = side_packets(request, is_queued=self.plan.spec.is_queued)
            self._check_outputs_are_produced(errors.GRAPH_ADD_OUTPUT_STREAM_ERROR)
            timestamp, packets = self._read_or_start(request, call, sides)
        except ServingError:
            self.metrics.rejected[method].inc()
            raise
        self.metrics.accepted[method].inc()
        with self.metrics.in_process(method):
            values, last = self._run_once(packets, timestamp, sides, call)
            answer = self._write_answer(request, values, last, stream=stream)
        self.metrics.responses[method].inc()
        return answer

    def _check_outputs_are_produced(self, status: Status) -> None:
        for port in self.plan.outputs:
            if port.stream < 0:
                raise ServingError(status, f'nothing produces the output stream "{port.name}"')

    def _read_or_start(
        self, request: Request, call: CallContext, sides: Mapping[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        """The time and the packets of a unary request.

        Raises:
            ServingError: what is wrong with them, unless the graph cannot even start: that is
                told first, as in streams.
        """
        try:
            return Clock().timestamp(request), self._packets(request)
        except ServingError:
            self._start_in_vain(call, sides)
            raise

    def _start_in_vain(self, call: CallContext, sides: Mapping[str, Any]) -> None:
        instance = Instance(self._prepared, call, sides, lambda position, timestamp, value: None)
        try:
            instance.start()
        finally:
            instance.stop()
            instance.finish()

    def _write_answer(
        self, request: Request, values: dict[int, Any], last: int, *, stream: bool
    ) -> bytes:
        wanted = request.outputs or self._output_names
        if self.plan.outputs[0].type == RESPONSE:
            return write_response_message(values[0], self.name, request.id, last, stream=stream)
        outputs = [
            write_packet(self.plan, position, values[position])
            for position in map(self._output_names.index, wanted)
        ]
        return self._write(request.id, outputs, last, stream=stream)

    def _write(self, id: str, outputs: list[Output], timestamp: int, *, stream: bool) -> bytes:
        parameters = timestamp_parameter(timestamp)
        return write_response(self.name, "1", id, outputs, parameters, stream=stream)

    def _run_once(
        self, packets: dict[str, Any], timestamp: int, sides: Mapping[str, Any], call: CallContext
    ) -> tuple[dict[int, Any], int]:
        """The first packet of each output, and the time of the last of those."""
        if self.plan.is_straight:
            streams = {self._inputs[name].stream: value for name, value in packets.items()}
            found = run_straight(self._prepared, call, sides, timestamp, streams)
            return self._complete(found), timestamp
        first: dict[int, Any] = {}
        times = [timestamp]

        def on_output(position: int, sent: int, value: Any) -> None:
            if position not in first:
                first[position] = value
                times.append(sent)
            if self.plan.has_back_edges and len(first) == len(self.plan.outputs):
                instance.stop()  # a generator may go on for long; nobody would hear it

        pool = self._workers if self.plan.n_threads > 1 else None
        instance = Instance(self._prepared, call, sides, on_output, pool)
        try:
            instance.start()
            for name, value in packets.items():
                self._push(instance, name, timestamp, value)
            instance.work()
        except ServingError as error:
            instance.fail(error)
            raise
        finally:
            instance.close_inputs()
            instance.finish()
        if instance.failure is not None:
            raise instance.failure
        return self._complete(first), times[-1]

    def _complete(self, found: dict[int, Any]) -> dict[int, Any]:
        if len(found) != len(self.plan.outputs):
            missing = [
                name for position, name in enumerate(self._output_names) if position not in found
            ]
            raise ServingError(
                errors.GRAPH_EXECUTION_ERROR,
                "Unknown error during mediapipe execution: nothing was sent to "
                f"{', '.join(missing)}",
            )
        return found

    def _packets(self, request: Request) -> dict[str, Any]:
        """Every input of a unary request.

        Raises:
            ServingError: INVALID_ARGUMENT, one is missing, unexpected, or broken.
        """
        check_coherency(request)
        packets: dict[str, Any] = {}
        for index, tensor in enumerate(request.inputs):
            value = self._read(request, index)
            if tensor.name in packets:
                raise ServingError(
                    errors.GRAPH_EXECUTION_ERROR,
                    "INVALID_ARGUMENT: Packet timestamp mismatch on a calculator receiving from "
                    f'stream "{tensor.name}": the input is there twice',
                )
            packets[tensor.name] = value
        if len(packets) != len(self._inputs):
            missing = ", ".join(name for name in self._inputs if name not in packets)
            raise ServingError(
                errors.INVALID_INPUT_COUNT,
                f"Not all input packets created - Expected: {len(self._inputs)}; Actual: "
                f"{len(packets)}; missing: {missing}",
            )
        return packets

    def _read(self, request: Request, index: int) -> Any:
        """The packet that an input of a request becomes.

        Raises:
            ServingError: it is unexpected, broken, or cannot enter the graph.
        """
        name = request.inputs[index].name
        port = self._inputs.get(name)
        if port is None:
            known = ", ".join(self._inputs)
            raise ServingError(errors.UNEXPECTED_INPUT, f"{name} is unexpected; inputs are {known}")
        value = read_packet(request, index, port.type)
        if port.mismatch:
            raise ServingError(errors.GRAPH_ADD_PACKET_ERROR, port.mismatch)
        return value

    def _push(self, instance: Instance, name: str, timestamp: int, value: Any) -> None:
        instance.push(self._inputs[name].stream, timestamp, value)

    # Streams.

    def stream(
        self, requests: Iterator[Request | ServingError], new_context: NewContext, sink: StreamSink
    ) -> None:
        """One instance for the whole stream; every packet that leaves it is a message.

        A message that cannot be read, or that names another servable, is answered in-band and
        the stream goes on; a failure of the graph ends it at once. A packet belongs to a time
        rather than to a request: the outputs that the first one asks for count for all.
        """
        first = next(requests)
        assert isinstance(first, Request)  # what named this graph
        self._check_outputs_are_produced(errors.INTERNAL_ERROR)
        with new_context() as call:
            sides = side_packets(first, is_queued=self.plan.spec.is_queued)
            with self.metrics.in_process(_STREAM):
                wanted = [name for name in self._output_names if name in first.outputs]
                _Stream(self, call, sides, sink, wanted).serve(first, requests)


class _Stream:
    """One stream: reads on the thread that calls, answers from those of the nodes.

    Args:
        wanted: the outputs to send; empty for all.
    """

    def __init__(
        self,
        graph: Graph,
        call: CallContext,
        sides: Mapping[str, Any],
        sink: StreamSink,
        wanted: Container[str],
    ) -> None:
        self._graph = graph
        self._sink = sink
        self._wanted = wanted or graph._output_names
        self._clock = Clock()
        self._instance = Instance(
            graph._prepared, call, sides, self._on_output, graph._workers, on_failure=sink.fail
        )

    def serve(self, first: Request, requests: Iterator[Request | ServingError]) -> None:
        """
        Raises:
            ServingError: the graph failed, or the call ended.
        """
        try:
            self._instance.start()
            self._take(first, "partial deserialization of first request")
            del first
            while self._instance.failure is None:
                request = next(requests, None)
                if request is None:
                    break
                self._take_next(request)
        except ServingError as error:
            self._instance.fail(error)
        except BaseException:
            # The client has gone: what the nodes still do is for nobody.
            self._instance.fail(ServingError(errors.CANCELLED))
            raise
        finally:
            self._instance.close_inputs()
            self._instance.finish()
        if self._instance.failure is not None:
            raise self._instance.failure

    def _take_next(self, request: Request | ServingError) -> None:
        try:
            if isinstance(request, ServingError):
                raise request
            check_same_servable(request, self._graph)
        except ServingError as error:
            suffix = (
                "partial deserialization of subsequent requests"
                if error.status is errors.MALFORMED_MESSAGE
                else "validate subsequent requests"
            )
            self._graph.metrics.rejected[_STREAM].inc()
            self._sink.send(write_error(f"{error}; {suffix}"))
            return
        self._take(request, "partial deserialization of subsequent requests")

    def _take(self, request: Request, suffix: str) -> None:
        """Push what a request brings; packets before the first bad one have been pushed then."""
        try:
            check_outputs(request, self._graph._output_names)
            timestamp = self._clock.timestamp(request)
            check_coherency(request)
            for index, tensor in enumerate(request.inputs):
                value = self._graph._read(request, index)
                self._graph._push(self._instance, tensor.name, timestamp, value)
        except ServingError as error:
            self._graph.metrics.rejected[_STREAM].inc()
            self._sink.send(write_error(f"{error}; {suffix}"))
        else:
            self._graph.metrics.accepted[_STREAM].inc()
        self._instance.advance()

    def _on_output(self, position: int, timestamp: int, value: Any) -> None:
        plan, name = self._graph.plan, self._graph.name
        if plan.outputs[position].name not in self._wanted:
            return
        if plan.outputs[position].type == RESPONSE:
            message = write_response_message(value, name, "", timestamp, stream=True)
        else:
            output = write_packet(plan, position, value)
            message = self._graph._write("", [output], timestamp, stream=True)
        self._sink.send(message)
        self._graph.metrics.responses[_STREAM].inc()
