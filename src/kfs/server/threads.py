"""Threads for questions about the server and its models, which no inference takes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

_Method = TypeVar("_Method", bound=Callable[..., Any])

_N_THREADS = 8


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_N_THREADS, thread_name_prefix="control")


def on_control_threads(method: _Method) -> _Method:
    """Let grpcio run a function there, so it answers while all others wait for an inference."""
    method.experimental_thread_pool = _pool()  # type: ignore[attr-defined]
    return method
