"""A graph file, parsed: what it says, checked for what can be seen in the text alone.

Source of the format: MediaPipe's CalculatorGraphConfig, and OpenVINO Model Server's reading of it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from google.protobuf import text_format
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass

from kfs._proto import calculator_graph_pb2 as pb
from kfs._proto.pool import POOL
from kfs.errors import ModelLoadError

# `name`, `TAG:name` or `TAG:index:name`.
_PORT = re.compile(r"(?:([A-Z_][A-Z0-9_]*):(?:(0|[1-9][0-9]{0,4}):)?)?([a-z_][a-z0-9_]*)")
_TAG_INDEX = re.compile(r"([A-Z_][A-Z0-9_]*)?(?::(0|[1-9][0-9]{0,4}))?")
_QUEUE = re.compile(r"^\s*#\s*OVMS_GRAPH_QUEUE_MAX_SIZE:[ \t]*(.*?)[ \t]*$", re.MULTILINE)

# What protobuf says of options that it does not know.
_UNKNOWN_OPTIONS = re.compile(r'Type (\S+) not found|Extension "(\S+)" not registered')
_OPTIONS = "CalculatorOptions"

_OUTPUT_HANDLER = "InOrderOutputStreamHandler"

#: How many packets an input of a node holds before the client has to wait, unless it is said.
DEFAULT_MAX_QUEUE_SIZE = 100


class GraphError(ModelLoadError):
    """A graph that cannot be served, in one readable line."""


@dataclass(frozen=True, order=True)
class Port:
    """One stream or side packet, as a node or the graph sees it.

    Attributes:
        tag: empty when there is none.
        index: counts within the tag.
        name: of the stream or side packet it is connected to.
    """

    tag: str
    index: int
    name: str

    def __str__(self) -> str:
        return f"{self.tag}:{self.index}:{self.name}" if self.tag else self.name


@dataclass(frozen=True)
class TagIndex:
    """A port of a node without what it is connected to."""

    tag: str
    index: int


Ports = tuple[Port, ...]


@dataclass(frozen=True)
class HandlerSpec:
    """An input stream handler by its name, with its options."""

    name: str = "DefaultInputStreamHandler"
    options: Mapping[str, Message] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeSpec:
    """One node.

    Ports are sorted by tag and index.

    Attributes:
        name: as error texts say it: given, or made of the calculator's name.
        is_named: whether the name was given.
        calculator: the name of its calculator.
        options: by the full name of the message's type, those of `node_options` and `options`.
        has_node_options: whether `node_options` is there.
        back_edges: inputs that are fed by a later node, or by this one.
    """

    name: str
    is_named: bool
    calculator: str
    inputs: Ports
    outputs: Ports
    side_inputs: Ports
    side_outputs: Ports
    options: Mapping[str, Message]
    has_node_options: bool
    handler: HandlerSpec
    back_edges: frozenset[TagIndex]
    #: Names of the input and output streams in the order of the file.
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


@dataclass(frozen=True)
class GraphSpec:
    """One graph file.

    Attributes:
        inputs, outputs: the streams of the graph, in the order of the file.
        n_threads: threads one instance may use at a time; 0 when it is not said.
        max_queue_size: packets that an input of a node holds; -1 for any number.
        is_queued: whether the file asks for a pool of instances, which refuses side packets.
    """

    inputs: Ports
    outputs: Ports
    nodes: tuple[NodeSpec, ...]
    n_threads: int
    max_queue_size: int
    is_queued: bool


def parse_graph(text: str) -> GraphSpec:
    """
    Raises:
        GraphError: the text is no graph; what is wrong, and where.
    """
    if not text.strip():
        raise GraphError("the file is empty; expected a CalculatorGraphConfig in text format")
    config = pb.CalculatorGraphConfig()
    try:
        text_format.Parse(text, config, descriptor_pool=POOL)
    except (text_format.ParseError, EncodeError, UnicodeDecodeError) as error:
        raise GraphError(_why_unread(error, text)) from None
    missing = _missing_fields(config)
    if missing:
        raise GraphError(f"required fields are missing: {', '.join(missing)}")
    _check_output_handler(config.output_stream_handler, "the graph")
    for direction in ("input", "output"):
        where = f"{direction}_side_packet of the graph"
        _ports(getattr(config, f"{direction}_side_packet"), where)
    names = _node_names(config)
    executors = {executor.name for executor in config.executor}
    for node, name in zip(config.node, names, strict=True):
        if node.executor and node.executor not in executors:
            raise GraphError(f'node {name}: there is no executor "{node.executor}" in the graph')
    default = _handler(config.input_stream_handler, "the graph")
    return GraphSpec(
        inputs=_ports(config.input_stream, "input_stream of the graph"),
        outputs=_ports(config.output_stream, "output_stream of the graph"),
        nodes=tuple(
            _node(node, name, default) for node, name in zip(config.node, names, strict=True)
        ),
        n_threads=_n_threads(config),
        max_queue_size=_max_queue_size(config),
        is_queued=_is_queued(text),
    )


def _why_unread(error: Exception, text: str) -> str:
    unknown = _UNKNOWN_OPTIONS.search(str(error))
    if unknown is None:
        return f"the file is no CalculatorGraphConfig in text format: {error}"
    name = unknown[1] or unknown[2]
    line = error.GetLine() if isinstance(error, text_format.ParseError) else None
    # Protobuf does not tell where the type of an Any is.
    any_of_it = re.search(rf"^[^#\n]*/\s*{re.escape(name)}\s*\]", text, re.MULTILINE)
    if line is None and any_of_it is not None:
        line = 1 + text.count("\n", 0, any_of_it.end())
    return ("" if line is None else f"line {line}: ") + _no_options(name)


def _no_options(name: str) -> str:
    known = (kind.removesuffix("Options") for kind in pb.DESCRIPTOR.message_types_by_name
             if kind.endswith(_OPTIONS) and kind != _OPTIONS)  # fmt: skip
    return f"there are no options {name}; known are those of {', '.join(sorted(known))}"


def _missing_fields(message: Message) -> list[str]:
    # Stubs for protobuf leave it out.
    found: list[str] = message.FindInitializationErrors()  # type: ignore[attr-defined]
    return found


def _is_queued(text: str) -> bool:
    """What the comment about a pool of instances says; instances are made anew all the same."""
    found = _QUEUE.search(text)
    if found is None or os.environ.get("OVMS_GRAPH_QUEUE_OFF") == "1":
        return False
    value = found.group(1)
    if value == "AUTO":
        return True
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise GraphError(
            f"OVMS_GRAPH_QUEUE_MAX_SIZE: expected a number that is not negative, or AUTO; "
            f"found {value!r}"
        )
    return int(value) > 0


def _check_output_handler(config: pb.OutputStreamHandlerConfig, where: str) -> None:
    if config.output_stream_handler != _OUTPUT_HANDLER:
        raise GraphError(
            f"{where}: expected {_OUTPUT_HANDLER} as output_stream_handler; found "
            f"{config.output_stream_handler}"
        )


def _max_queue_size(config: pb.CalculatorGraphConfig) -> int:
    if config.max_queue_size < -1:
        raise GraphError(
            f"expected max_queue_size to be -1 or not negative; found {config.max_queue_size}"
        )
    return config.max_queue_size or DEFAULT_MAX_QUEUE_SIZE


def _n_threads(config: pb.CalculatorGraphConfig) -> int:
    n_threads = config.num_threads or _executor_threads(config)
    if n_threads < -1:
        raise GraphError(f"expected num_threads to be -1 or not negative; found {n_threads}")
    return max(0, n_threads)  # -1 leaves it to the server, as 0 does


def _executor_threads(config: pb.CalculatorGraphConfig) -> int:
    """Threads of the default executor, when the file describes it."""
    for executor in config.executor:
        if not executor.name:
            for options in _extensions(executor.options).values():
                return int(getattr(options, "num_threads", 0))
    return 0


def _node_names(config: pb.CalculatorGraphConfig) -> list[str]:
    """Given names, or those of the calculators, numbered when several nodes share one."""
    plain = [node.name or node.calculator for node in config.node]
    counts, seen = Counter(plain), Counter[str]()
    names = []
    for name, node in zip(plain, config.node, strict=True):
        if counts[name] > 1 and not node.name:
            seen[name] += 1
            name = f"{name}_{seen[name]}"
        names.append(name)
    return names


def _node(node: pb.CalculatorGraphConfig.Node, name: str, default: HandlerSpec) -> NodeSpec:
    where = f"node {name}"
    if not node.calculator:
        raise GraphError(f"{where}: expected the name of a calculator; there is none")
    _check_output_handler(node.output_stream_handler, where)
    handler = default
    if node.HasField("input_stream_handler"):
        handler = _handler(node.input_stream_handler, where)
    inputs = _ports(node.input_stream, f"{where}, input_stream")
    outputs = _ports(node.output_stream, f"{where}, output_stream")
    options = _extensions(node.options)
    for packed in node.node_options:
        message = _unpack(packed, where)
        options[message.DESCRIPTOR.full_name] = message
    return NodeSpec(
        name=name,
        is_named=bool(node.name),
        calculator=node.calculator,
        inputs=_sorted(inputs),
        outputs=_sorted(outputs),
        side_inputs=_sorted(_ports(node.input_side_packet, f"{where}, input_side_packet")),
        side_outputs=_sorted(_ports(node.output_side_packet, f"{where}, output_side_packet")),
        options=options,
        has_node_options=len(node.node_options) > 0,
        handler=handler,
        back_edges=frozenset(_back_edges(node, inputs, where)),
        input_names=tuple(port.name for port in inputs),
        output_names=tuple(port.name for port in outputs),
    )


def _sorted(ports: Ports) -> Ports:
    return tuple(sorted(ports))


def _handler(config: pb.InputStreamHandlerConfig, where: str) -> HandlerSpec:
    return HandlerSpec(config.input_stream_handler, _extensions(config.options))


def _extensions(options: Message) -> dict[str, Message]:
    return {
        value.DESCRIPTOR.full_name: value
        for descriptor, value in options.ListFields()
        if descriptor.is_extension
    }


def _unpack(packed: Message, where: str) -> Message:
    name = packed.type_url.rpartition("/")[2]  # type: ignore[attr-defined]  # an Any
    if not name:
        return packed
    try:
        message: Message = GetMessageClass(POOL.FindMessageTypeByName(name))()
        message.ParseFromString(packed.value)  # type: ignore[attr-defined]
    except KeyError:
        raise GraphError(f"{where}, node_options: {_no_options(name)}") from None
    except DecodeError as error:
        raise GraphError(f"{where}, node_options: the value is no {name}: {error}") from None
    missing = _missing_fields(message)
    if missing:
        raise GraphError(f"{where}, {name}: required fields are missing: {', '.join(missing)}")
    return message


def _back_edges(
    node: pb.CalculatorGraphConfig.Node, inputs: Ports, where: str
) -> Iterator[TagIndex]:
    known = {TagIndex(port.tag, port.index) for port in inputs}
    for info in node.input_stream_info:
        found = _TAG_INDEX.fullmatch(info.tag_index)
        if found is None:
            raise GraphError(
                f'{where}, input_stream_info: expected a tag_index such as "TAG:0" or ":1"; '
                f'found "{info.tag_index}"'
            )
        place = TagIndex(found.group(1) or "", int(found.group(2) or 0))
        if place not in known:
            raise GraphError(
                f'{where}, input_stream_info: the node has no input "{info.tag_index}"'
            )
        if info.back_edge:
            yield place


def parse_tag_index(text: str) -> TagIndex | None:
    """`TAG:0`, `TAG` or `:1`; None for anything else."""
    found = _TAG_INDEX.fullmatch(text)
    return found and TagIndex(found.group(1) or "", int(found.group(2) or 0))


def _ports(texts: Iterable[str], where: str) -> Ports:
    """
    Raises:
        GraphError: a text is no port, or two are the same.
    """
    ports: list[Port] = []
    taken: dict[TagIndex, str] = {}
    next_index: Counter[str] = Counter()
    for text in texts:
        found = _PORT.fullmatch(text)
        if found is None:
            raise GraphError(
                f'{where}: "{text}" does not match "TAG:index:name", "TAG:name" or "name", where '
                "a TAG is in upper case and a name in lower case"
            )
        tag, index_text, name = found.group(1) or "", found.group(2), found.group(3)
        if tag:
            index = int(index_text or 0)
        else:
            index = next_index[""]
            next_index[""] += 1
        place = TagIndex(tag, index)
        if place in taken:
            raise GraphError(
                f'{where}: tag "{tag}" index {index} already had a name "{taken[place]}" but is '
                f'now also "{name}"'
            )
        taken[place] = name
        ports.append(Port(tag, index, name))
    return tuple(ports)
