"""Graphs as people read them."""

from __future__ import annotations

from pathlib import Path

from graphs.graph_site import ends, node

from kfs.servables.graph import outline
from kfs.servables.graph.graph import registry
from kfs.servables.graph.plan import make_plan
from kfs.servables.graph.spec import parse_graph

EXAMPLES = Path(__file__).parents[2] / "examples" / "graphs"


def lines(text: str) -> list[str]:
    return outline(make_plan(parse_graph(text), registry))


def test_models() -> None:
    assert lines((EXAMPLES / "two_models" / "graph.pbtxt").read_text()) == [
        "input image: ov::Tensor, to read",
        "node OpenVINOModelServerSessionCalculator_1",
        "  gives side packet SESSION:digits",
        '  servable_name: "digits"',
        "node OpenVINOModelServerSessionCalculator_2",
        "  gives side packet SESSION:parity",
        '  servable_name: "parity"',
        "node read (OpenVINOInferenceCalculator)",
        "  OVTENSOR:image -> OVTENSOR:probabilities",
        "  takes side packet SESSION:digits",
        '  tag_to_input_tensor_names { key: "OVTENSOR" value: "image" } '
        'tag_to_output_tensor_names { key: "OVTENSOR" value: "probabilities" }',
        "node judge (OpenVINOInferenceCalculator)",
        "  OVTENSOR:probabilities -> OVTENSOR:parity",
        "  takes side packet SESSION:parity",
        '  tag_to_input_tensor_names { key: "OVTENSOR" value: "probabilities" } '
        'tag_to_output_tensor_names { key: "OVTENSOR" value: "parity" }',
        "output probabilities: ov::Tensor, from read",
        "output parity: ov::Tensor, from judge",
    ]


def test_a_loop_with_sets() -> None:
    assert lines((EXAMPLES / "rhymes" / "graph.pbtxt").read_text()) == [
        "input prompt: pyovms.Tensor, to write",
        "input length: pyovms.Tensor, to write",
        "node write (PythonExecutorCalculator)",
        "  LENGTH:length, LOOPBACK:loopback (back), PROMPT:prompt -> LOOPBACK:loopback, TEXT:text",
        "  takes side packet PYTHON_NODE_RESOURCES:py",
        '  handler_path: "write.py"',
        "  SyncSetInputStreamHandler: LOOPBACK:loopback | LENGTH:length, PROMPT:prompt",
        "output text: pyovms.Tensor, from write",
    ]


def test_what_may_be_a_mistake_is_seen() -> None:
    text = ends(["in", "IMAGE:frame", "unread"], ["in", "gone"])
    text += node("AddOne", ["in"], ["x"], 'input_stream_handler { input_stream_handler: '
                 '"ImmediateInputStreamHandler" }')  # fmt: skip
    text += node("AddOne", ["TAG:2:frame"], ["TAG:2:y"])
    text += node("AddSidePacket", ["x"], ["z"], 'input_side_packet: "VALUE:val"')
    assert lines(text) == [
        "input in: ov::Tensor, to AddOne_1",
        "input frame: mediapipe::ImageFrame, to AddOne_2",
        '  no packet can enter: stream "frame" carries mediapipe::ImageFrame, but node AddOne_2 '
        "takes ov::Tensor",
        "input unread: ov::Tensor, to nobody",
        "parameter val",
        "node AddOne_1",
        "  in -> x",
        "  ImmediateInputStreamHandler",
        "node AddOne_2",
        "  TAG:2:frame -> TAG:2:y",
        "node AddSidePacket",
        "  x -> z",
        "  takes side packet VALUE:val",
        "output in: ov::Tensor, from the client",
        "output gone: ov::Tensor, from nobody",
    ]
