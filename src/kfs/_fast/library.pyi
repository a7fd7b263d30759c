"""Calls into libraries of custom nodes: without the GIL, and what they throw is caught.

An exception of C++ that met a caller in plain C would end the process.
"""

from typing import final

@final
class Functions:
    """The six functions of a library, by their addresses.

    What is passed are addresses too, 0 for NULL: of structures as include/kfs/custom_node.h
    declares them, and of where to write. The caller keeps all of it alive.

    Each returns what the library did.

    Raises:
        RuntimeError: the library threw an exception; with its text.
    """

    def __new__(
        cls,
        initialize: int,
        deinitialize: int,
        execute: int,
        get_inputs_info: int,
        get_outputs_info: int,
        release: int,
    ) -> Functions: ...
    def initialize(self, manager: int, params: int, n_params: int) -> int: ...
    def deinitialize(self, manager: int) -> int: ...
    def execute(
        self,
        inputs: int,
        n_inputs: int,
        outputs: int,
        n_outputs: int,
        params: int,
        n_params: int,
        manager: int,
    ) -> int: ...
    def get_inputs_info(
        self, infos: int, n_infos: int, params: int, n_params: int, manager: int
    ) -> int: ...
    def get_outputs_info(
        self, infos: int, n_infos: int, params: int, n_params: int, manager: int
    ) -> int: ...
    def release(self, memory: int, manager: int) -> int: ...
