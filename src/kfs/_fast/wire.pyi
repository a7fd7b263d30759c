"""A ModelInferRequest, read but not copied."""

from collections.abc import Mapping
from typing import NamedTuple, final

class Parameter(NamedTuple):
    """A parameter: which member of the choice was sent, and its value.

    `kind` is empty and `value` None when no member was sent.
    """

    kind: str
    value: bool | int | str | float | None

@final
class InputTensor:
    """One of `inputs`: what it says of itself; its data stays in the request."""

    @property
    def name(self) -> str: ...
    @property
    def datatype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def parameters(self) -> Mapping[str, Parameter]: ...
    @property
    def has_contents(self) -> bool:
        """Whether `contents` is present, even if empty."""

@final
class Request:
    """A request whose payloads are still where they were, inside `data`."""

    @property
    def data(self) -> bytes: ...
    @property
    def model_name(self) -> str: ...
    @property
    def model_version(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Parameter]: ...
    @property
    def inputs(self) -> tuple[InputTensor, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the requested outputs, in order."""

    @property
    def n_raw(self) -> int:
        """How many raw_input_contents there are."""

def read_request(data: bytes) -> Request:
    """Read a serialized ModelInferRequest in one pass, as protobuf would.

    Unlike protobuf it refuses what would take many times the message's own memory: inputs,
    outputs, parameters, dimensions and raw contents beyond a million together, and beyond 32 Mi
    elements of BYTES and numbers that are not packed.

    Raises:
        WireError: the bytes are not such a message; with the path and the offset of the fault.
    """

def check_strings(data: bytes, names: dict[int, str]) -> None:
    """Check a serialized message that has no fields but strings, numbers and booleans.

    Args:
        names: the names of the fields that are strings, by number.

    Raises:
        WireError: the bytes are not such a message; with the field and the offset of the fault.
    """
