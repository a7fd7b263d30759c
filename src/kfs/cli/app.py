"""The composition root: puts the parts together, starts, drains and stops them."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from concurrent.futures import Future
from multiprocessing.connection import wait
from types import TracebackType

from kfs.cli.signals import End
from kfs.errors import ModelLoadError
from kfs.metrics.registry import Metrics
from kfs.repository.catalog import Catalog
from kfs.repository.config import Wanted, once_written, read_config, read_metrics, wanted_of
from kfs.repository.repository import Repository
from kfs.repository.schema import ConfigError
from kfs.servables.model import add_extension
from kfs.server.control import ControlHandler
from kfs.server.health import Health
from kfs.server.infer import InferHandler
from kfs.server.side_port import SidePort
from kfs.server.tls import TlsError
from kfs.server.transport import ListenError, listen, make_server, max_calls_of_each
from kfs.settings import ServerSettings

_log = logging.getLogger("kfs.serving")


class StartError(Exception):
    """The server cannot start; one readable line."""


class Server:
    """A server and everything it needs; a context manager that starts, loads and stops.

    Args:
        metrics: the families to offer; None looks them up in the settings.

    Attributes:
        port: of gRPC, once it is open.
        rest_port: of HTTP, likewise; None when there is none.

    Raises:
        ConfigError: the metrics in the config file are not to be had.
    """

    def __init__(self, settings: ServerSettings, metrics: frozenset[str] | None = None) -> None:
        self.settings = settings
        self.port = settings.port
        self.rest_port = settings.rest_port
        self.catalog = Catalog()
        self.metrics = Metrics(metric_names(settings) if metrics is None else metrics)
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._health = Health()
        self.repository = Repository(
            self.catalog,
            self._read_wanted,
            settings.config_path,
            lambda name, serving: self._health.set_servable(name, serving=serving),
            self.metrics,
            max_calls_of_each(settings),
        )
        self._side_port = SidePort(
            self._is_to_get_traffic, self.metrics.expose if self.metrics.is_enabled else None
        )
        self._transport = make_server(
            settings,
            InferHandler(self.catalog),
            ControlHandler(self.catalog, self._ready.is_set),
            self._health,
        )

    def start(self) -> None:
        """Open the ports; models are not loaded yet.

        Raises:
            StartError: an address cannot be bound.
        """
        try:
            self.port = listen(self._transport.server, self.settings)
            if self.rest_port is not None:
                self.rest_port = self._side_port.start(
                    self.settings.rest_bind_address, self.rest_port
                )
        except (ListenError, TlsError) as error:
            raise StartError(str(error)) from None
        self._transport.start()
        _log.info("Started gRPC server on port %d", self.port)
        if self.rest_port is not None:
            _log.info("Started HTTP server on port %d", self.rest_port)

    def load(self) -> None:
        """Load every model, then be ready.

        A model on the command line that cannot be served ends the start; in a config file it
        leaves the others serving.

        Raises:
            ModelLoadError: one line that names the model.
            ConfigError: one line that names the place in the file.
        """
        if self.settings.cpu_extension is not None:
            add_extension(self.settings.cpu_extension)
        if self.settings.defaults.cache_dir is not None:
            _log.info("Model cache is enabled: %s", self.settings.defaults.cache_dir)
        self.repository.load()
        if self.repository.is_stopped:
            return
        named = [model.name for model in self.settings.models]
        named += [graph.name for graph in self.settings.graphs]
        for name in named:
            entry = self.catalog.entry(name)
            if entry.error is not None and entry.default() is None:
                raise ModelLoadError(entry.error)
        if self.settings.poll_wait_s:
            self.repository.watch(self.settings.poll_wait_s)
        self._ready.set()
        self._health.set_server(serving=True)
        _log.info("ServableManagerModule started")  # what scripts made for OVMS wait for
        _log.info("Ready")

    def _read_wanted(self) -> Wanted:
        if self.settings.config_path is not None:
            return read_config(self.settings.config_path, self.settings.defaults)
        return wanted_of(self.settings.models, self.settings.graphs, self.settings.defaults)

    def stop(self, grace_s: float | None = None) -> int:
        """Take no new call, let the running ones finish, close the port.

        Args:
            grace_s: seconds to wait for running calls, and then for handlers that are finalized;
                None takes it from the settings.

        Returns:
            How many calls are stuck and did not end, a load among them, or what is unloaded.
        """
        drain_s = self.settings.drain_s if grace_s is None else grace_s
        end = time.monotonic() + drain_s
        self._stopping.set()
        self._health.enter_shutdown()
        self.repository.stop()
        n_stuck = self._transport.stop(drain_s)
        self._side_port.stop()
        if not self.repository.close(max(end - time.monotonic(), 0)):
            n_stuck += 1
        return n_stuck

    def _is_to_get_traffic(self) -> bool:
        return self._ready.is_set() and not self._stopping.is_set()

    def __enter__(self) -> Server:
        self.start()
        try:
            self.load()
        except BaseException:
            self.stop(0)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def metric_names(settings: ServerSettings) -> frozenset[str]:
    """The families of metrics to offer, from the command line or from the config file.

    Raises:
        ConfigError: they are not to be had.
    """
    if settings.config_path is None:
        return settings.metrics
    path = settings.config_path
    named = once_written(lambda: read_metrics(path))
    place = f"{path}: monitoring.metrics"
    if named and settings.metrics:
        raise ConfigError(f"{place}: metrics are enabled on the command line as well")
    if named and settings.rest_port is None:
        raise ConfigError(
            f"{place}: rest_port setting is missing, metrics are enabled on rest port"
        )
    return named or settings.metrics


def run(settings: ServerSettings, end: End) -> int:
    """Serve until the end; the exit code: 0 after draining, 1 when it cannot start."""
    server = None
    try:
        server = Server(settings)
        server.start()
        loading = begin_load(server, end)
        while not end.has_come():
            if loading.done():  # looked at after the news of it was read, which comes once
                loading.result()
            wait([end.news])
    except (StartError, ModelLoadError, ConfigError) as error:
        print(f"kfs-fast: {error}", file=sys.stderr)
        if server is not None:
            server.stop(0)
        return 1
    _log.info("Stopping: running calls get %g s to finish", settings.drain_s)
    n_stuck = server.stop()
    _log.info("Stopped")
    leave_stuck(n_stuck)
    return 0


def begin_load(server: Server, end: End) -> Future[None]:
    """Load on a thread of its own, since a load may take long, or hang.

    Returns:
        What has the result, or the exception, of `Server.load`; the end has news then.
    """
    loading: Future[None] = Future()

    def load() -> None:
        try:
            server.load()
        except BaseException as error:
            loading.set_exception(error)
        else:
            loading.set_result(None)
        end.wake()

    threading.Thread(target=load, name="load", daemon=True).start()
    return loading


def leave_stuck(n_stuck: int) -> None:
    """End the process at once, with success, where calls are stuck: it would wait for them."""
    if n_stuck:
        _log.warning("What is stuck is left, calls, loads or what is unloaded: %d", n_stuck)
        logging.shutdown()
        os._exit(0)
