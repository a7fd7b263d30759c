"""What an operator asked for, after parsing: plain values, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: The largest message taken or sent, in bytes.
MAX_MESSAGE_NBYTES = 1 << 30

PluginValue = str | bool | int | float


@dataclass(frozen=True)
class ModelSettings:
    """One model to serve.

    Attributes:
        name: the name clients use.
        base_path: a folder with version folders (`1/`, `2/`, ...), or one model file.
        nireq: infer requests, so inferences at a time; 0 lets the device choose.
        plugin_config: OpenVINO properties for compilation.
        target_device: an OpenVINO device name.
        cache_dir: folder for compiled models, None for no cache.
    """

    name: str
    base_path: Path
    nireq: int = 0
    plugin_config: Mapping[str, PluginValue] = field(default_factory=dict)
    target_device: str = "CPU"
    cache_dir: Path | None = None


@dataclass(frozen=True)
class ServerSettings:
    """One server.

    Attributes:
        models: what to serve.
        port: the gRPC port; 0 takes a free one.
        grpc_bind_address: addresses to bind, each a host name, an IPv4 or an IPv6 address.
        grpc_max_threads: handler threads, so calls in progress at a time; 0 for the default.
        grpc_channel_arguments: options handed to gRPC as they are.
        drain_s: seconds that running calls get to finish on shutdown.
    """

    models: tuple[ModelSettings, ...]
    port: int = 9000
    grpc_bind_address: tuple[str, ...] = ("0.0.0.0",)
    grpc_max_threads: int = 0
    grpc_channel_arguments: Mapping[str, str | int] = field(default_factory=dict)
    drain_s: float = 30.0
