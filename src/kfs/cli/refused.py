"""The flags of OVMS that are never served: each is refused by name, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

# What asks for nothing, where that is not false.
_OFF = {"idle_unload_timeout_seconds": "0", "grpc_memory_quota": "0"}

_Command = TypeVar("_Command", bound=Callable[..., Any])

_NO_REST = "there is no REST inference here, only gRPC"
_NO_GENAI = "generative pipelines and model downloads are no part of this server"
_NO_EDIT = "this server does not edit configuration files"
_NO_LIST = "kfs-fast models lists what a server has"
_NO_STATE = "stateful models were dropped by OVMS itself in 2026.3"
_NO_IDLE = "what is loaded stays loaded; nothing is unloaded for being idle"
_NO_LAXITY = "a request has the inputs of its model, no more and no fewer"
_NO_QUOTA = "gRPC for Python has no memory quota; limit the memory of the process instead"
#: Flags of OVMS that are never served, and why.
REFUSED = {
    "grpc_memory_quota": _NO_QUOTA,
    "idle_unload_timeout_seconds": _NO_IDLE,
    "disable_input_count_validation": _NO_LAXITY,
    "rest_workers": _NO_REST,
    "allow_credentials": _NO_REST,
    "allowed_headers": _NO_REST,
    "allowed_methods": _NO_REST,
    "allowed_origins": _NO_REST,
    "api_key_file": _NO_REST,
    "allowed_local_media_path": _NO_GENAI,
    "allowed_media_domains": _NO_GENAI,
    "verbose_response": _NO_REST,
    "pull": _NO_GENAI,
    "source_model": _NO_GENAI,
    "model_repository_path": _NO_GENAI,
    "task": _NO_GENAI,
    "gguf_filename": _NO_GENAI,
    "overwrite_models": _NO_GENAI,
    **dict.fromkeys(
        (
            "source_loras",
            "weight_format",
            "vocoder",
            "extra_quantization_params",
            "draft_source_model",
            "cache_size",
            "cache_interval_multiplier",
            "max_num_seqs",
            "max_num_batched_tokens",
            "enable_prefix_caching",
            "dynamic_split_fuse",
            "kv_cache_precision",
            "pipeline_type",
            "max_prompt_len",
            "max_length",
            "model_distribution_policy",
            "reasoning_parser",
            "tool_parser",
            "enable_tool_guided_generation",
            "normalize",
            "truncate",
            "pooling",
            "num_streams",
            "resolution",
            "num_images_per_prompt",
            "default_resolution",
            "max_resolution",
        ),
        _NO_GENAI,
    ),
    "trace_path": "there is no tracing of this kind here; --log_level DEBUG tells of every request",
    "list_models": _NO_LIST,
    "add_to_config": _NO_EDIT,
    "remove_from_config": _NO_EDIT,
    "group_name": _NO_EDIT,
    "configure": _NO_EDIT,
    "stateful": _NO_STATE,
    "sequence_cleaner_poll_wait_minutes": _NO_STATE,
    "idle_sequence_cleanup": _NO_STATE,
    "low_latency_transformation": _NO_STATE,
    "max_sequence_number": _NO_STATE,
}


def _refuse(context: click.Context, option: click.Parameter, value: object) -> None:
    if value not in (None, _OFF.get(str(option.name), "false")):
        raise click.UsageError(f"--{option.name}: {REFUSED[str(option.name)]}")


def refused_flags(command: _Command) -> _Command:
    """Understand the flags, so that they are refused by name and not as unknown.

    Each may have a value, as every switch of OVMS may.
    """
    for name in REFUSED:
        command = click.option(
            f"--{name}", is_flag=False, flag_value="true", default=None, hidden=True,
            callback=_refuse, expose_value=False,
        )(command)  # fmt: skip
    return command
