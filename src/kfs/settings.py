"""What an operator asked for, after parsing: plain values, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kfs.options import Batch, Conversion, Layout, Shape, VersionPolicy

#: The largest message taken or sent, in bytes.
MAX_MESSAGE_NBYTES = 1 << 30

#: Where OpenCV reads, when it is imported, how many pixels an image may have.
MAX_PIXELS_VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"

#: Names the folder in which the processes of one server count together; Prometheus' library looks
#: at it when it is imported.
SHARED_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

#: The last is of properties by device.
PluginValue = str | bool | int | float | Mapping[str, Mapping[str, str | bool | int | float]]


@dataclass(frozen=True)
class ModelSettings:
    """One model to serve.

    Two settings that are equal need no reload.

    Attributes:
        name: the name clients use.
        base_path: a folder with version folders (`1/`, `2/`, ...), or one model file; or the
            address of such a folder in a cloud.
        nireq: infer requests, so inferences at a time; 0 lets the device choose.
        max_waiting_calls: calls that wait for one of them at a time; more are refused.
        plugin_config: OpenVINO properties for compilation.
        target_device: an OpenVINO device name.
        cache_dir: folder for compiled models, None for no cache.
        version_policy: which versions are served.
        shapes: by the name of an input, or `options.UNNAMED` for the only one.
        batch: what the batch dimension of every input is made; None leaves it.
        layouts: by the name of an input or output, or `options.UNNAMED` for the only input.
        mean: subtracted from the only input, one number or one for each channel.
        scale: divides it after that.
        color_format: conversion of colours in the only input.
        precision: conversion of datatypes in the only input.
        allow_cache: use the cache also for a model whose shape or batch is `auto`.
    """

    name: str
    base_path: Path | str
    nireq: int = 0
    max_waiting_calls: int = 1000
    plugin_config: Mapping[str, PluginValue] = field(default_factory=dict)
    target_device: str = "CPU"
    cache_dir: Path | None = None
    version_policy: VersionPolicy = field(default_factory=VersionPolicy)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    batch: Batch | None = None
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    color_format: Conversion | None = None
    precision: Conversion | None = None
    allow_cache: bool = False

    @property
    def is_auto(self) -> bool:
        """Whether the model takes the shape or the batch of each request."""
        return self.batch == "auto" or "auto" in self.shapes.values()


@dataclass(frozen=True)
class GraphSettings:
    """One graph to serve.

    Attributes:
        name: the name clients use.
        base_path: its folder, where relative paths in the graph file begin.
        path: the graph file, which may lie elsewhere.
        subconfigs: files with further models, of which the first that exists counts.
    """

    name: str
    base_path: Path
    path: Path
    subconfigs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ServerSettings:
    """One server.

    Attributes:
        models: what to serve, when there is no config.json.
        graphs: likewise.
        config_path: the config.json to serve and to watch.
        defaults: what config.json leaves out of a model.
        poll_wait_s: seconds between looks for changes; 0 for never.
        cpu_extension: a library of operations that OpenVINO is to know.
        metrics: the families of metrics to offer on the HTTP port.
        port: the gRPC port; 0 takes a free one.
        rest_port: the HTTP port for metrics and probes; 0 takes a free one, None has no port.
        rest_bind_address: addresses to bind it to.
        grpc_bind_address: addresses to bind, each a host name, an IPv4 or an IPv6 address.
        certificate_path: the server's certificate for TLS; None for no TLS.
        key_path: its private key.
        client_ca_path: who signs certificates of clients, which then must have one.
        n_workers: server processes on the port.
        grpc_max_threads: calls that run at a time, without those that take long, as they mostly
            wait; 0 for the default.
        max_streams: streams open at a time, each with a thread of its own.
        grpc_channel_arguments: options handed to gRPC as they are.
        drain_s: seconds that running calls get to finish on shutdown.
    """

    models: tuple[ModelSettings, ...] = ()
    graphs: tuple[GraphSettings, ...] = ()
    config_path: Path | None = None
    defaults: ModelSettings = field(default_factory=lambda: ModelSettings("", ""))
    poll_wait_s: float = 1.0
    cpu_extension: Path | None = None
    metrics: frozenset[str] = frozenset()
    port: int = 9000
    rest_port: int | None = None
    rest_bind_address: tuple[str, ...] = ("0.0.0.0",)
    grpc_bind_address: tuple[str, ...] = ("0.0.0.0",)
    certificate_path: Path | None = None
    key_path: Path | None = None
    client_ca_path: Path | None = None
    n_workers: int = 1
    grpc_max_threads: int = 0
    max_streams: int = 1000
    grpc_channel_arguments: Mapping[str, str | int] = field(default_factory=dict)
    drain_s: float = 30.0
