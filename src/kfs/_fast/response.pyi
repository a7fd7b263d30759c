"""The response writer: measure, allocate one `bytes`, fill it, see that it is exactly full."""

from collections.abc import Mapping, Sequence

from typing_extensions import Buffer

from kfs._fast.memory import TensorView
from kfs._fast.strings import Elements
from kfs._fast.wire import Parameter

OutputData = Buffer | Elements

def write_response(
    model_name: str,
    model_version: str,
    id: str,
    outputs: Sequence[tuple[str, str, Sequence[int], OutputData]],
    parameters: Mapping[str, Parameter] | None = None,
    *,
    stream: bool = False,
) -> bytes:
    """A serialized ModelInferResponse with its tensors in raw_output_contents.

    Args:
        outputs: name, datatype, shape and data of each; data is a C-contiguous buffer, or
            elements of BYTES.
        stream: wrap it as the infer_response of a ModelStreamInferResponse.

    Raises:
        ServingError: RESOURCE_EXHAUSTED, the message would be larger than may be sent.
        BufferError, ValueError: a buffer that is not C-contiguous.
    """

def reserve_response(
    model_name: str,
    model_version: str,
    id: str,
    outputs: Sequence[tuple[str, str, Sequence[int], int]],
    parameters: Mapping[str, Parameter] | None = None,
    *,
    stream: bool = False,
) -> tuple[bytes, list[TensorView]]:
    """The same message with a size in bytes in place of each output's data.

    The views are the places for the data, not filled yet: they are to be filled before anyone
    else sees the message.
    """

def write_error(message: str) -> bytes:
    """A serialized ModelStreamInferResponse with an error_message."""
