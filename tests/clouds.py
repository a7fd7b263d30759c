"""Servers on loopback that speak the few calls with which models are read from a cloud.

Each holds one bucket, `models`, as paths and bytes; any other is not found.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

KEY = base64.b64encode(b"a key of this test alone").decode()


@dataclass(frozen=True)
class Item:
    """A file, and how often its path was written, which stands for its tag."""

    data: bytes
    generation: int


class Cloud:
    """The bucket of one server; a context manager that stops the server.

    Attributes:
        scheme: what base paths begin with.
        cut: paths whose download breaks off in the middle.
    """

    def __init__(self, scheme: str, handler: type[_Handler]) -> None:
        self.scheme = scheme
        self.items: dict[str, Item] = {}
        self.cut: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.cloud = self  # type: ignore[attr-defined]
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def url(self, path: str) -> str:
        return f"{self.scheme}://models/{path}"

    def put(self, path: str, data: bytes) -> None:
        before = self.items.get(path, Item(b"", 0))
        self.items[path] = Item(data, before.generation + 1)

    def delete(self, path: str) -> None:
        del self.items[path]

    def stop(self) -> None:
        """Be out of reach from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def below(self, prefix: str) -> Iterator[tuple[str, Item]]:
        return (found for found in sorted(self.items.items()) if found[0].startswith(prefix))

    def split(self, prefix: str, delimiter: str) -> tuple[list[str], list[tuple[str, Item]]]:
        """The prefixes up to a delimiter, and the files that have none behind the prefix."""
        prefixes, files = set(), []
        for path, item in self.below(prefix):
            name, found, _ = path[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if found:
                prefixes.add(prefix + name + delimiter)
            else:
                files.append((path, item))
        return sorted(prefixes), files


class _Handler(BaseHTTPRequestHandler):
    server: ThreadingHTTPServer

    def log_message(self, *args: object) -> None:
        pass

    @property
    def cloud(self) -> Cloud:
        return self.server.cloud  # type: ignore[attr-defined, no-any-return]

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    @property
    def parts(self) -> list[str]:
        """The parts of the path; the last one keeps its quoted slashes."""
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def answer(self, status: int, kind: str, data: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def send_file(self, path: str) -> None:
        """The range of a file that was asked for, or the whole."""
        item = self.cloud.items.get(path)
        if item is None:
            self.answer(404, "text/plain", b"")
            return
        data, total = item.data, len(item.data)
        wanted = self.headers.get("x-ms-range") or self.headers.get("Range")
        first = 0
        if wanted:
            low, _, high = wanted.removeprefix("bytes=").partition("-")
            first = int(low)
            data = data[first : int(high) + 1 if high else None]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{item.generation}"')
        self.send_header("x-ms-blob-type", "BlockBlob")
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{total}")
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if path in self.cloud.cut else data)


class _Gs(_Handler):
    """The JSON API of Google Cloud Storage."""

    def do_GET(self) -> None:
        parts = self.parts
        if parts[parts.index("b") + 1] != "models":
            error = {"error": {"code": 404, "message": "The specified bucket does not exist."}}
            self.answer(404, "application/json", json.dumps(error).encode())
        elif parts[-1] == "o":
            self._list()
        else:
            self.send_file(parts[-1])

    def _list(self) -> None:
        prefixes, files = self.cloud.split(
            self.query.get("prefix", ""), self.query.get("delimiter", "")
        )
        found = {
            "prefixes": prefixes,
            "items": [
                {"name": path, "size": str(len(item.data)), "generation": str(item.generation)}
                for path, item in files
            ],
        }
        self.answer(200, "application/json", json.dumps(found).encode())


class _Azure(_Handler):
    """What the REST APIs of blobs and of files have in common."""

    def do_GET(self) -> None:
        _account, share, *path = self.parts
        if share != "models":
            self._not_found("ContainerNotFound" if self.cloud.scheme == "az" else "ShareNotFound")
        elif self.query.get("comp") == "list":
            self.list("/".join(path))
        else:
            self.send_file("/".join(path))

    def _not_found(self, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>There is no {code}.\nId:1</Message></Error>"
        self.answer(404, "application/xml", text.encode(), x_ms_error_code=code)

    def list(self, folder: str) -> None:
        raise NotImplementedError

    def answer_list(self, kind: str, entries: str) -> None:
        text = f'<?xml version="1.0"?><EnumerationResults><{kind}>{entries}</{kind}><NextMarker/>'
        self.answer(200, "application/xml", f"{text}</EnumerationResults>".encode())


def _file_entry(tag: str, name: str, item: Item) -> str:
    return (
        f"<{tag}><Name>{escape(name)}</Name><Properties><Content-Length>{len(item.data)}"
        f'</Content-Length><BlobType>BlockBlob</BlobType><Etag>"{item.generation}"</Etag></Properties></{tag}>'
    )


class _AzureBlobs(_Azure):
    def list(self, folder: str) -> None:
        prefixes, files = self.cloud.split(
            self.query.get("prefix", ""), self.query.get("delimiter", "")
        )
        self.answer_list(
            "Blobs",
            "".join(f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>" for name in prefixes)
            + "".join(_file_entry("Blob", path, item) for path, item in files),
        )


class _AzureFiles(_Azure):
    def list(self, folder: str) -> None:
        prefix = f"{folder}/" if folder else ""
        prefixes, files = self.cloud.split(prefix, "/")
        names = [name.removeprefix(prefix).rstrip("/") for name in prefixes]
        self.answer_list(
            "Entries",
            "".join(
                f"<Directory><Name>{escape(name)}</Name><Properties/></Directory>" for name in names
            )
            + "".join(_file_entry("File", path[len(prefix) :], item) for path, item in files),
        )


def gs() -> tuple[Cloud, dict[str, str]]:
    """A server of Google's kind, and the environment that leads there."""
    cloud = Cloud("gs", _Gs)
    return cloud, {"STORAGE_EMULATOR_HOST": cloud.address}


def az() -> tuple[Cloud, dict[str, str]]:
    """A server of Azure's blobs, and the environment that leads there."""
    return _azure(Cloud("az", _AzureBlobs))


def azfs() -> tuple[Cloud, dict[str, str]]:
    """A server of Azure's files, and the environment that leads there."""
    return _azure(Cloud("azfs", _AzureFiles))


def _azure(cloud: Cloud) -> tuple[Cloud, dict[str, str]]:
    place = f"BlobEndpoint={cloud.address}/me;FileEndpoint={cloud.address}/me"
    text = f"DefaultEndpointsProtocol=http;AccountName=me;AccountKey={KEY};{place}"
    return cloud, {"AZURE_STORAGE_CONNECTION_STRING": text}
