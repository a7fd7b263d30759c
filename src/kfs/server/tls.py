"""TLS and mutual TLS, with certificates that are read again when their files change."""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from kfs.files import check_is_file

_log = logging.getLogger("kfs.server")


class TlsError(Exception):
    """Certificates that cannot be used; one readable line with the file."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files.

    Attributes:
        certificate: the server's certificate, and those between it and its root.
        key: its private key, without a passphrase.
        client_ca: who signs the certificates of clients; None lets clients come without one.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        others = () if self.client_ca is None else (self.client_ca,)
        return (self.certificate, self.key, *others)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that follow the files: a new connection gets what they hold by then.

    New files that cannot be used are logged, and the old ones stay in use.

    Raises:
        TlsError: the files cannot be used now.
    """
    reloader = _Reloader(files)
    return grpc.dynamic_ssl_server_credentials(
        reloader.first,
        reloader.changed,  # type: ignore[arg-type]  # None stands for no change
        require_client_authentication=files.client_ca is not None,
    )


class _Reloader:
    """Reads the files again when they have changed; called at every handshake."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._stamp = _stamp(files)
        self._fault = ""
        self.first = _read(files)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        with self._lock:
            stamp = _stamp(self._files)
            if stamp == self._stamp:
                return None
            try:
                configuration = _read(self._files)
            except TlsError as error:
                # They are tried again each time: they may not be readable yet, for instance.
                if str(error) != self._fault:
                    _log.error("The certificates in use stay, the new ones are broken: %s", error)
                self._fault = str(error)
                return None
            self._stamp, self._fault = stamp, ""
        _log.info("Certificates were read again from %s", self._files.certificate)
        return configuration


def _stamp(files: TlsFiles) -> list[tuple[int, int, int] | None]:
    stamps: list[tuple[int, int, int] | None] = []
    for path in files.paths:
        try:
            stat = path.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return stamps


def _read(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    contents = [_contents(path) for path in files.paths]
    # gRPC would take anything here and refuse every handshake later.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty password: a key with a passphrase is refused, and nobody is asked for it.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (ssl.SSLError, ValueError, OSError) as error:
        raise TlsError(
            f"{files.certificate} and {files.key} are not a certificate and its private key "
            f"without passphrase, both in PEM: {error}"
        ) from None
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise TlsError(f"{files.client_ca} holds no certificates in PEM: {error}") from None
    certificate, key, *client_ca = contents
    return grpc.ssl_server_certificate_configuration(
        [(key, certificate)], root_certificates=client_ca[0] if client_ca else None
    )


def _contents(path: Path) -> bytes:
    try:
        check_is_file(path)
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"cannot read {path} for TLS: {error.strerror}") from None
