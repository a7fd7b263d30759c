"""TLS and mutual TLS, and certificates that change while the server runs."""

from __future__ import annotations

import errno
import os
import re
import signal
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton
import trustme
from click.testing import CliRunner
from conftest import loopback

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli import cli
from kfs.cli.app import Server, StartError
from kfs.digits import MODEL_PATH
from kfs.settings import ModelSettings, ServerSettings


class Files:
    """Certificates on disk, as an operator has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "server.pem"
        self.key = folder / "server.key"
        self.ca = folder / "ca.pem"
        self.client_ca = folder / "client_ca.pem"
        self.clients = trustme.CA()
        self.clients.cert_pem.write_to_path(self.client_ca)
        self.issue()

    def issue(self) -> trustme.CA:
        """A new certificate by a new authority."""
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        for path, blobs in (
            (self.certificate, issued.cert_chain_pems),
            (self.key, [issued.private_key_pem]),
            (self.ca, [authority.cert_pem]),
        ):
            new = path.with_suffix(".new")
            new.write_bytes(b"".join(blob.bytes() for blob in blobs))
            os.replace(new, path)
        return authority

    def client(self, authority: trustme.CA) -> tuple[Path, Path]:
        """The certificate and key of a client."""
        issued = authority.issue_cert("somebody@example.org")
        paths = self.folder / "client.pem", self.folder / "client.key"
        issued.cert_chain_pems[0].write_to_path(paths[0])
        issued.private_key_pem.write_to_path(paths[1])
        return paths

    def settings(self, *, mutual: bool = False) -> ServerSettings:
        return replace(
            loopback(ModelSettings("digits", MODEL_PATH)),
            certificate_path=self.certificate,
            key_path=self.key,
            client_ca_path=self.client_ca if mutual else None,
        )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_clients_of_the_page_are_let_in(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "security.md").read_text()
    alone, with_certificate = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    files.client(files.clients)
    monkeypatch.chdir(files.folder)
    names: dict[str, Any] = {}
    for code, mutual in ((alone, False), (with_certificate, True)):
        with Server(files.settings(mutual=mutual)) as server:
            exec(code.replace("localhost:9000", f"localhost:{server.port}"), names)
            with names["client"] as client:
                assert client.is_server_live()


def is_live(port: int, ca: Path, client: tuple[Path, Path] | None = None) -> bool:
    """Whether a client that trusts `ca` gets an answer over a connection of its own."""
    certificate, key = client or (None, None)
    credentials = grpc.ssl_channel_credentials(
        ca.read_bytes(), key and key.read_bytes(), certificate and certificate.read_bytes()
    )
    # Without this, channels of one process to one address share a connection.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerLive",
            request_serializer=pb.ServerLiveRequest.SerializeToString,
            response_deserializer=pb.ServerLiveResponse.FromString,
        )
        try:
            return bool(call(pb.ServerLiveRequest(), timeout=20).live)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False


def test_clients_of_the_protocol_speak_tls(files: Files) -> None:
    with (
        Server(files.settings()) as server,
        triton.InferenceServerClient(
            f"localhost:{server.port}", ssl=True, root_certificates=str(files.ca)
        ) as client,
    ):
        assert client.is_model_ready("digits")


def test_a_client_that_does_not_trust_the_server_is_not_served(files: Files) -> None:
    with Server(files.settings()) as server:
        assert is_live(server.port, files.ca)
        assert not is_live(server.port, files.client_ca)


def test_mutual_tls_takes_certificates_of_its_authority_only(files: Files) -> None:
    with Server(files.settings(mutual=True)) as server:
        assert is_live(server.port, files.ca, files.client(files.clients))
        assert not is_live(server.port, files.ca)
        assert not is_live(server.port, files.ca, files.client(trustme.CA()))


def test_changed_certificates_are_used_for_new_connections(files: Files) -> None:
    with Server(files.settings()) as server:
        old = files.folder / "old.pem"
        old.write_bytes(files.ca.read_bytes())
        files.issue()
        assert is_live(server.port, files.ca)
        assert not is_live(server.port, old)


def test_broken_new_certificates_leave_the_old_ones_in_use(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(files.settings()) as server:
        files.certificate.write_text("no certificate")
        assert is_live(server.port, files.ca)
        assert "The certificates in use stay" in caplog.text
        files.issue()
        assert is_live(server.port, files.ca)


def test_new_certificates_are_used_once_they_can_be_read(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The owner of a file may be set after it was written, for instance."""
    with Server(files.settings()) as server:
        old = files.folder / "old.pem"
        old.write_bytes(files.ca.read_bytes())
        files.issue()
        read = Path.read_bytes

        def refuse(path: Path) -> bytes:
            if path == files.key:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", refuse)
        assert is_live(server.port, old)
        assert is_live(server.port, old)
        assert caplog.text.count("Permission denied") == 1
        monkeypatch.undo()
        assert is_live(server.port, files.ca)


def test_files_that_cannot_be_used_end_the_start(files: Files, tmp_path: Path) -> None:
    missing = replace(files.settings(), key_path=tmp_path / "nowhere.key")
    with pytest.raises(StartError, match=r"nowhere\.key for TLS: No such file"):
        Server(missing).start()
    other = trustme.CA().issue_cert("localhost").private_key_pem
    other.write_to_path(tmp_path / "other.key")
    mismatch = replace(files.settings(), key_path=tmp_path / "other.key")
    with pytest.raises(StartError, match="not a certificate and its private key"):
        Server(mismatch).start()
    (tmp_path / "empty.pem").write_text("")
    no_ca = replace(files.settings(), client_ca_path=tmp_path / "empty.pem")
    with pytest.raises(StartError, match=r"empty\.pem holds no certificates"):
        Server(no_ca).start()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--grpc_certificate_path", "c"], "need each other"),
        (["--grpc_key_path", "k"], "need each other"),
        (["--grpc_ca_path", "a"], "--grpc_ca_path needs --grpc_certificate_path"),
    ],
)
def test_flags_that_need_each_other(flags: list[str], message: str) -> None:
    done = CliRunner().invoke(cli, ["serve", *flags])
    assert done.exit_code != 0
    assert message in done.output


def test_the_commands_speak_tls(files: Files) -> None:
    certificate, key = files.client(files.clients)
    with Server(files.settings(mutual=True)) as server:
        url = f"localhost:{server.port}"
        tls = ["--ca", str(files.ca), "--cert", str(certificate), "--key", str(key)]
        done = CliRunner().invoke(cli, ["models", "--url", url, *tls])
        assert done.exit_code == 0, done.output
        assert "digits" in done.output
        load = ["--shape", "1,8,8,1", "--duration", "0.1", "--warmup", "0"]
        done = CliRunner().invoke(cli, ["bench", "digits", "--url", url, *tls, *load])
        assert done.exit_code == 0, done.output
        done = CliRunner().invoke(cli, ["models", "--url", url, "--ca", str(files.folder / "no")])
        assert done.exit_code != 0
        assert "No such file" in done.output or "does not exist" in done.output


def test_the_commands_say_why_there_is_no_connection(files: Files) -> None:
    def refusal_of(server: Server, *flags: str) -> str:
        url = f"localhost:{server.port}"
        done = CliRunner().invoke(cli, ["models", "--timeout", "5", "--url", url, *flags])
        assert done.exit_code != 0
        return done.output

    with Server(files.settings()) as server:
        assert "takes no gRPC without TLS; is --tls needed" in refusal_of(server)
        assert "is the server's certificate signed by --ca" in refusal_of(server, "--tls")
    plain = replace(files.settings(), certificate_path=None, key_path=None)
    with Server(plain) as server:
        assert "or has it no TLS?" in refusal_of(server, "--tls")


def test_serve_takes_the_flags_and_a_unix_socket(files: Files) -> None:
    socket = files.folder / "kfs.sock"
    process = subprocess.Popen(
        [sys.executable, "-c", "from kfs.cli import main; main()", "serve", "--port", "0",
         "--grpc_bind_address", f"127.0.0.1,unix:{socket}",
         "--grpc_certificate_path", str(files.certificate), "--grpc_key_path", str(files.key)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert any(line.rstrip().endswith("Ready") for line in process.stdout)
        credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
        options = [("grpc.ssl_target_name_override", "localhost")]
        with grpc.secure_channel(f"unix:{socket}", credentials, options) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_fixture_makes_certificates_that_openssl_takes(files: Files) -> None:
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_verify_locations(files.client_ca)
