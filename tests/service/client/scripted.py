"""Servers that misbehave as they are told, and both clients to meet them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import socketserver
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from service.client import AsyncClient, Client

Answer = tuple[int | None, dict[str, str], bytes]
Call = Callable[..., Any]

CUT: Answer = (None, {}, b"")


def blocking(url: str, key: str = "key", **options: Any) -> Call:
    """Calls a method of a client by its name; a client for each call."""

    def call(name: str, *args: Any, **more: Any) -> Any:
        with Client(url, key, **{"backoff_s": 0.001, **options}) as client:
            found = getattr(client, name)(*args, **more)
            return list(found) if isinstance(found, Iterator) else found

    return call


def awaiting(url: str, key: str = "key", **options: Any) -> Call:
    """The same with an event loop."""

    async def answer(name: str, *args: Any, **more: Any) -> Any:
        async with AsyncClient(url, key, **{"backoff_s": 0.001, **options}) as client:
            found = getattr(client, name)(*args, **more)
            if isinstance(found, AsyncIterator):
                return [item async for item in found]
            return await found

    return lambda name, *args, **more: asyncio.run(answer(name, *args, **more))


CLIENTS = {"blocking": blocking, "awaiting": awaiting}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class _Script(BaseHTTPRequestHandler):
    """Answers with the next line of the server's script, whatever is asked."""

    def do_GET(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.asked.append(
            Asked(method=self.command, path=self.path, headers=dict(self.headers), body=body)
        )
        status, headers, content = server.script.pop(0)
        if status is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_DELETE = do_PATCH = do_PUT = do_GET

    def log_message(self, *_: Any) -> None:
        return


@dataclass(kw_only=True)
class Scripted:
    url: str
    asked: list[Asked]


@contextmanager
def scripted(*answers: Answer) -> Iterator[Scripted]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Script)
    server.script, server.asked = list(answers), []
    with _serving(server):
        yield Scripted(url=f"http://127.0.0.1:{server.server_port}", asked=server.asked)


def problem(status: int, code: str, headers: dict[str, str] | None = None) -> Answer:
    body = {"title": "x", "status": status, "detail": f"it is {code}", "code": code}
    return (status, headers or {}, json.dumps({**body, "request_id": "r1"}).encode())


def job(state: str = "queued", **more: Any) -> dict[str, Any]:
    return {"id": "j", "name": "", "state": state, "spec": {}, "created_at": 1, **more}


def answers(body: Any, status: int = 200) -> Answer:
    return (status, {}, json.dumps(body).encode())


@dataclass(kw_only=True)
class FaultyFile:
    """A file on a server; faults are used up one by one, a request each.

    Attributes:
        cuts: after how many bytes the connection breaks.
        flips: a byte of the file that arrives as another one.
    """

    content: bytes
    chunk_bytes: int = 0
    cuts: list[int] = field(default_factory=list)
    flips: list[int] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    url: str = ""
    has_ranges: bool = True

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def digests(self) -> dict[str, Any]:
        size = self.chunk_bytes
        chunks = [self.content[i : i + size] for i in range(0, len(self.content), size)]
        return {
            "sha256": self.sha256,
            "size_bytes": len(self.content),
            "chunk_bytes": size,
            "chunks": [hashlib.sha256(chunk).hexdigest() for chunk in chunks],
        }

    @property
    def artifact(self) -> dict[str, Any]:
        return {
            "id": "art",
            "target_index": None,
            "name": "model.onnx",
            "sha256": self.sha256,
            "size_bytes": len(self.content),
            "media_type": "application/octet-stream",
            "created_at": 1.0,
        }


class _File(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        file: FaultyFile = server.file
        if self.path.endswith("/artifacts"):
            return self._send(200, {}, json.dumps({"items": [file.artifact]}).encode())
        if self.path.endswith("/digests"):
            if file.chunk_bytes:
                return self._send(200, {}, json.dumps(file.digests).encode())
            status, headers, body = problem(404, "not_found")
            return self._send(status or 404, headers, body)
        return self._send_content(file)

    def _send_content(self, file: FaultyFile) -> None:
        wanted = self.headers.get("Range", "")
        file.ranges.append(wanted)
        etag = f'"sha256-{file.sha256}"'
        start = 0
        if wanted and file.has_ranges and self.headers.get("If-Range") == etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start > len(file.content):
            return self._send(416, {}, b"")
        content = bytearray(file.content)
        if file.flips:
            content[file.flips.pop(0)] ^= 255
        headers = {"ETag": etag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = file.cuts.pop(0) if file.cuts else None
        return self._send(206 if start else 200, headers, bytes(content[start:]), cut)

    def _send(
        self, status: int, headers: Mapping[str, str], body: bytes, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body[:cut])
        except ConnectionError:
            self.close_connection = True  # the client has seen enough
        if cut is not None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def serving_file(file: FaultyFile) -> Iterator[FaultyFile]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _File)
    server.file = file
    file.url = f"http://127.0.0.1:{server.server_port}"
    with _serving(server):
        yield file


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def losing_answers(url: str, num_lost: int) -> Iterator[str]:
    """The URL of a way to `url` on which the first answers are lost, but no request is."""
    upstream = httpx.URL(url)
    lost = iter(range(num_lost))

    class Way(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((upstream.host, upstream.port or 80)) as server:
                to_server = threading.Thread(target=_carry, args=(self.connection, server))
                to_server.start()
                while content := server.recv(1 << 16):
                    if next(lost, None) is not None:
                        break
                    self.connection.sendall(content)
                for end in (self.connection, server):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                to_server.join()

    class Ways(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Ways(("127.0.0.1", 0), Way) as ways, _serving(ways):
        yield f"http://127.0.0.1:{ways.server_address[1]}"


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
