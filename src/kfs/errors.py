"""What can go wrong with a request, and how it is told to a client.

A status is a code and a base text; the texts are the ones clients of OpenVINO Model Server know.
Details follow the base text after `` - `` and say what was expected, what was found, and where.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Code(enum.IntEnum):
    """The gRPC status codes this server answers with, by their numbers on the wire."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


@dataclass(frozen=True)
class Status:
    """A gRPC code and the base text that begins the message."""

    code: Code
    text: str


MODEL_NAME_MISSING = Status(Code.NOT_FOUND, "Model with requested name is not found")
MODEL_VERSION_MISSING = Status(Code.NOT_FOUND, "Model with requested version is not found")
MODEL_VERSION_RETIRED = Status(Code.NOT_FOUND, "Model with requested version is retired")
MODEL_VERSION_NOT_LOADED_YET = Status(
    Code.UNAVAILABLE, "Model with requested version is not loaded yet"
)
INVALID_VERSION_FORMAT = Status(Code.INVALID_ARGUMENT, "invalid model version format in request")

RESHAPE_FAILED = Status(
    Code.FAILED_PRECONDITION, "Model could not be reshaped with requested shape"
)

INVALID_INPUT_COUNT = Status(Code.INVALID_ARGUMENT, "Invalid number of inputs")
MISSING_INPUT = Status(Code.INVALID_ARGUMENT, "Missing input with specific name")
MISSING_OUTPUT = Status(Code.INVALID_ARGUMENT, "Missing output with specific name")
INVALID_RANK = Status(Code.INVALID_ARGUMENT, "Invalid number of shape dimensions")
INVALID_BATCH_SIZE = Status(Code.INVALID_ARGUMENT, "Invalid input batch size")
INVALID_SHAPE = Status(Code.INVALID_ARGUMENT, "Invalid input shape")
INVALID_STRING_INPUT = Status(Code.INVALID_ARGUMENT, "Invalid string input")
INVALID_INPUT_FORMAT = Status(
    Code.INVALID_ARGUMENT, "Inputs inside buffer does not match expected format."
)
INVALID_PRECISION = Status(Code.INVALID_ARGUMENT, "Invalid input precision")
UNSUPPORTED_OUTPUT_PRECISION = Status(Code.INVALID_ARGUMENT, "Unsupported serialization precision")
INVALID_VALUE_COUNT = Status(
    Code.INVALID_ARGUMENT, "Invalid number of values in tensor proto container"
)
INVALID_VALUE = Status(Code.INVALID_ARGUMENT, "Invalid value in tensor proto container")
INVALID_CONTENT_SIZE = Status(Code.INVALID_ARGUMENT, "Invalid content size of tensor proto")
INVALID_MESSAGE_STRUCTURE = Status(
    Code.INVALID_ARGUMENT,
    "Passing buffers both in ModelInferRequest::InferInputTensor::contents and in "
    "ModelInferRequest::raw_input_contents is not allowed",
)
MALFORMED_MESSAGE = Status(Code.INVALID_ARGUMENT, "Malformed message")
BYTES_NOT_ACCEPTED = Status(Code.INVALID_ARGUMENT, "Input does not accept BYTES")

UNSUPPORTED_LAYOUT = Status(
    Code.INVALID_ARGUMENT,
    "Received binary image input but resource not configured to accept NHWC layout",
)
INVALID_CHANNEL_COUNT = Status(Code.INVALID_ARGUMENT, "Invalid number of channels in binary input")
RESOLUTION_MISMATCH = Status(
    Code.INVALID_ARGUMENT,
    "Binary input images for this endpoint are required to have the same resolution",
)
EMPTY_BYTES = Status(Code.INVALID_ARGUMENT, "Bytes contents is empty")
UNDECODABLE_IMAGE = Status(Code.INVALID_ARGUMENT, "Image parsing failed")
STRING_LIMIT_EXCEEDED = Status(Code.INVALID_ARGUMENT, "String input exceeds the size limit")

WRONG_STREAM_SERVABLE = Status(
    Code.INVALID_ARGUMENT, "Subsequent request with incorrect servable name"
)
WRONG_STREAM_VERSION = Status(
    Code.INVALID_ARGUMENT, "Subsequent request with incorrect servable version"
)

PIPELINE_NO_RESULTS = Status(
    Code.ABORTED, "Pipeline execution aborted due to no content from custom node"
)
DEMULTIPLY_TOO_LARGE = Status(Code.INVALID_ARGUMENT, "Too large dimension size to demultiply")
DEMULTIPLY_RANK = Status(Code.INTERNAL, "Wrong number of dimensions to demultiply")
DEMULTIPLY_SIZE = Status(Code.INVALID_ARGUMENT, "Wrong dimension size to demultiply")
DEMULTIPLY_STRING = Status(Code.INVALID_ARGUMENT, "String demultiplication is not supported")
INCONSISTENT_SHARDS = Status(
    Code.INVALID_ARGUMENT, "Gathered tensors have inconsistent dimensions or precision"
)
PIPELINE_NOT_LOADED_YET = Status(Code.UNAVAILABLE, "Pipeline is not loaded yet")
PIPELINE_RETIRED = Status(Code.NOT_FOUND, "Pipeline is retired")
CUSTOM_NODE_FAILED = Status(Code.INTERNAL, "Custom node failed on execution")
CUSTOM_NODE_OUTPUTS_CORRUPTED = Status(Code.INTERNAL, "Custom node has returned corrupted outputs")

GRAPH_NOT_LOADED_YET = Status(Code.UNAVAILABLE, "Mediapipe is not loaded yet")
GRAPH_RETIRED = Status(Code.NOT_FOUND, "Mediapipe is retired")
GRAPH_INITIALIZATION_ERROR = Status(
    Code.FAILED_PRECONDITION, "Failed to initialize mediapipe graph"
)
GRAPH_START_ERROR = Status(Code.FAILED_PRECONDITION, "Failed to start mediapipe graph")
GRAPH_ADD_OUTPUT_STREAM_ERROR = Status(
    Code.FAILED_PRECONDITION, "Failed to add mediapipe graph output stream"
)
GRAPH_ADD_PACKET_ERROR = Status(
    Code.FAILED_PRECONDITION, "Failed to add packet to mediapipe graph input stream"
)
GRAPH_PRECONDITION_FAILED = Status(Code.FAILED_PRECONDITION, "Mediapipe graph precondition failed")
GRAPH_EXECUTION_ERROR = Status(Code.INVALID_ARGUMENT, "Mediapipe execution failed. MP status")
INVALID_TIMESTAMP = Status(Code.INVALID_ARGUMENT, "Malformed packet timestamp")
UNEXPECTED_INPUT = Status(Code.INVALID_ARGUMENT, "Unexpected input")
INVALID_PARAMETER = Status(Code.INVALID_ARGUMENT, "Invalid request parameter")

INTERNAL_ERROR = Status(Code.INTERNAL, "Internal server error")
DESERIALIZATION_ERROR = Status(Code.INTERNAL, "Internal deserialization error")
INFERENCE_ERROR = Status(Code.INTERNAL, "Internal inference error")
SERIALIZATION_ERROR = Status(Code.INTERNAL, "Internal serialization error")

DEADLINE_EXCEEDED = Status(Code.DEADLINE_EXCEEDED, "Deadline exceeded")
CANCELLED = Status(Code.CANCELLED, "Call cancelled by the client")
TOO_MANY_WAITING = Status(Code.RESOURCE_EXHAUSTED, "Too many calls are waiting")
TOO_MANY_CALLS = Status(Code.RESOURCE_EXHAUSTED, "Too many calls")
TOO_MANY_PACKETS = Status(Code.RESOURCE_EXHAUSTED, "Too many packets are waiting")
TOO_MANY_STREAMS = Status(Code.RESOURCE_EXHAUSTED, "Too many streams")
RESPONSE_TOO_LARGE = Status(Code.RESOURCE_EXHAUSTED, "Response is too large")


class ServingError(Exception):
    """A call that ends with a status.

    `str(error)` is what the client reads: the base text, or ``<base text> - <details>``.
    """

    def __init__(self, status: Status, details: str = "") -> None:
        super().__init__(f"{status.text} - {details}" if details else status.text)
        self.status = status
        self.details = details


class WireError(ValueError):
    """Bytes that are not a valid message: what is wrong, on which path, at which byte."""

    def __init__(self, reason: str, path: str, offset: int) -> None:
        super().__init__(f"{path} at byte {offset}: {reason}")
        self.reason = reason
        self.path = path
        self.offset = offset


class ValueRangeError(ValueError):
    """A value in int_contents or uint_contents that does not fit the tensor's datatype."""

    def __init__(self, value: int, index: int, datatype: str) -> None:
        super().__init__(f"value {value} at index {index} does not fit {datatype}")
        self.value = value
        self.index = index
        self.datatype = datatype


class ModelLoadError(Exception):
    """A model that cannot be served, in one readable line."""
