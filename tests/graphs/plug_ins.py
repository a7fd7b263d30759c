"""Calculators that the tests add: small ones, each for one property of the engine."""

from __future__ import annotations

import sys
import threading

import numpy as np

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.errors import Code
from kfs.servables.graph import Calculator, CalculatorError, Contract, NodeContext
from kfs.servables.graph.calculator import (
    BOOL,
    INT64,
    OV_TENSOR,
    REQUEST,
    RESPONSE,
    STRING,
    Setting,
)
from kfs.servables.graph.spec import NodeSpec


class AddOne(Calculator):
    """Each input plus one, to the output of the same position."""

    @classmethod
    def contract(cls, contract: Contract) -> None:
        contract.inputs.update(dict.fromkeys(contract.node.inputs, OV_TENSOR))
        contract.outputs.update(dict.fromkeys(contract.node.outputs, OV_TENSOR))

    def process(self, context: NodeContext) -> None:
        for port, value in zip(context.node.outputs, context.inputs, strict=True):
            if value is not None:
                context.send(value + np.float32(1), port.tag, port.index)


class AddSidePacket(Calculator):
    """The input plus the side packet."""

    def process(self, context: NodeContext) -> None:
        context.send(context.inputs[0] + np.float32(context.side_packet("VALUE")))


class Sum(Calculator):
    """All inputs that are there, and how many those are."""

    def process(self, context: NodeContext) -> None:
        there = [value for value in context.inputs if value is not None]
        context.send(np.float32(sum(float(value[0]) for value in there) + 100 * len(there))[None])


class SumInTime(Sum):
    """The same, and nothing more comes at a timestamp that has been."""

    @classmethod
    def contract(cls, contract: Contract) -> None:
        contract.is_offset_zero = True


class ErrorOnNegative(Calculator):
    """Fails at a negative value, and passes others."""

    def process(self, context: NodeContext) -> None:
        if context.inputs[0].flat[0] < 0:
            raise CalculatorError("Error", Code.INVALID_ARGUMENT)
        context.send(context.inputs[0])


class Crash(Calculator):
    """Fails in a way that no calculator should."""

    def process(self, context: NodeContext) -> None:
        raise ZeroDivisionError("secret")


class Exit(Calculator):
    """Wants to end the process."""

    def process(self, context: NodeContext) -> None:
        sys.exit(3)


class ExitInContract(Calculator):
    """The same, when a graph that names it is loaded."""

    @classmethod
    def contract(cls, contract: Contract) -> None:
        sys.exit("no licence")


class CrashInPrepare(Calculator):
    """Fails to make what all instances share."""

    @classmethod
    def prepare(cls, node: NodeSpec, setting: Setting) -> None:
        raise ZeroDivisionError("no weights")


class FailInOpen(Calculator):
    """Never gets ready."""

    def open(self, context: NodeContext) -> None:
        raise CalculatorError("Negative")

    def process(self, context: NodeContext) -> None:
        raise AssertionError("not reached")


class FailInInit(Calculator):
    """Cannot even be made."""

    def __init__(self) -> None:
        sys.exit(3)


class Silent(Calculator):
    """Sends nothing."""

    def process(self, context: NodeContext) -> None:
        pass


class PassRequest(Calculator):
    """REQUEST to RESPONSE: what came in as `in` goes out as `out`."""

    @classmethod
    def contract(cls, contract: Contract) -> None:
        contract.inputs[contract.node.inputs[0]] = REQUEST
        contract.outputs[contract.node.outputs[0]] = RESPONSE

    def process(self, context: NodeContext) -> None:
        request = context.inputs[0]
        response = pb.ModelInferResponse(raw_output_contents=request.raw_input_contents)
        for tensor in request.inputs:
            response.outputs.add(name="out", datatype=tensor.datatype, shape=tensor.shape)
        context.send(response, "RESPONSE")


class Cycle(Calculator):
    """Adds one to what comes from the client or from itself, three times."""

    def process(self, context: NodeContext) -> None:
        given = next((value for value in context.inputs if value is not None), None)
        if given is None:  # one of the inputs has ended
            return
        value = given + np.float32(1)
        self.count = getattr(self, "count", 0) + 1
        context.send(value, "", 0, context.timestamp)
        if self.count < 3:
            context.send(value, "", 1, context.timestamp + 1)


class Side(Calculator):
    """What the side packets hold, as three outputs."""

    @classmethod
    def contract(cls, contract: Contract) -> None:
        types = {"STRING": STRING, "INT64": INT64, "BOOL": BOOL}
        contract.side_inputs.update({port: types[port.tag] for port in contract.node.side_inputs})

    def process(self, context: NodeContext) -> None:
        text = context.side_packet("STRING").encode()
        context.send(np.frombuffer(text, np.uint8), "STRING")
        context.send(np.array([context.side_packet("INT64")], np.int64), "INT64")
        context.send(np.array([context.side_packet("BOOL")], np.bool_), "BOOL")


class Gate(Calculator):
    """Waits until the test lets it go on; says that it waits, and that it was closed."""

    waiting = threading.Semaphore(0)
    opened = threading.Semaphore(0)
    closed = threading.Semaphore(0)

    def process(self, context: NodeContext) -> None:
        Gate.waiting.release()
        assert Gate.opened.acquire(timeout=30)
        context.send(context.inputs[0])

    def close(self, context: NodeContext) -> None:
        Gate.closed.release()

    @staticmethod
    def drain() -> None:
        """Forget what a test has left."""
        while Gate.opened.acquire(blocking=False) or Gate.waiting.acquire(blocking=False):
            pass


class CountClosed(Calculator):
    """Passes packets; counts what is open."""

    n_open = 0
    lock = threading.Lock()

    def open(self, context: NodeContext) -> None:
        with self.lock:
            CountClosed.n_open += 1

    def process(self, context: NodeContext) -> None:
        context.send(context.inputs[0])

    def close(self, context: NodeContext) -> None:
        with self.lock:
            CountClosed.n_open -= 1


class Last(Calculator):
    """Keeps what comes and sends the last of it at the end."""

    def process(self, context: NodeContext) -> None:
        self.kept = context.timestamp, context.inputs[0]

    def close(self, context: NodeContext) -> None:
        context.send(self.kept[1], timestamp=self.kept[0])


class Pack(Calculator):
    """All inputs as one list, of whatever kind the next node wants."""

    def process(self, context: NodeContext) -> None:
        context.send(list(context.inputs), "TENSORS")


class Turn(Calculator):
    """The input with its axes in reverse order, on the same memory."""

    def process(self, context: NodeContext) -> None:
        context.send(context.inputs[0].T)


class Freeze(Calculator):
    """The input as it would be in a file that was read: in memory that cannot be written."""

    def process(self, context: NodeContext) -> None:
        value = context.inputs[0]
        context.send(np.frombuffer(value.tobytes(), value.dtype).reshape(value.shape))


class Convert(Calculator):
    """The input as numpy's type of the name that the side packet says."""

    def process(self, context: NodeContext) -> None:
        context.send(context.inputs[0].astype(context.side_packet("TYPE")))


class Widen(Calculator):
    """A thousand times the input."""

    def process(self, context: NodeContext) -> None:
        context.send(np.resize(context.inputs[0], 1000))


class Unpack(Calculator):
    """The only tensor of a list."""

    def process(self, context: NodeContext) -> None:
        (tensor,) = context.input("TENSORS")
        context.send(tensor)


class Generators:
    """What a handler of the tests tells of itself."""

    begun = threading.Semaphore(0)
    ended = threading.Semaphore(0)
    finalized = threading.Event()


class Stuck:
    """Where handlers and calculators wait, and what lets them go."""

    reached = threading.Semaphore(0)
    released = threading.Event()
    never = threading.Event()

    @staticmethod
    def hold() -> None:
        """Let whoever comes wait, and forget who came in another test."""
        Stuck.released.clear()
        while Stuck.reached.acquire(blocking=False):
            pass


class WaitForever(Calculator):
    """Waits where `Stuck` says, as a handler would."""

    def process(self, context: NodeContext) -> None:
        Stuck.reached.release()
        assert Stuck.released.wait(60)


ALL = (AddOne, AddSidePacket, Sum, SumInTime, ErrorOnNegative, Crash, Exit, ExitInContract,
       CrashInPrepare, FailInOpen, FailInInit, Silent, PassRequest, Cycle, Side, Gate,
       CountClosed, Last, WaitForever, Pack, Unpack,
       Turn, Freeze, Convert, Widen)  # fmt: skip
