"""A hub of one's own: a real HTTP server that speaks what huggingface_hub asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LATER = "beef" + "1" * 36


@dataclass
class Hub:
    """Repositories by `models/org/name`, in each the files of a commit, and where branches point.

    Attributes:
        held: names of files whose last byte does not come, until `released`.
        lying: announced hashes of files, by name.
    """

    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    asked: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    lying: dict[str, str] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)
    is_down: bool = False
    url: str = ""

    def add(self, repo: str, files: dict[str, bytes], commit: str = COMMIT) -> None:
        self.repos.setdefault(repo, {})[commit] = files

    def got(self, name: str) -> int:
        """How often a file was fetched."""
        return sum(line.startswith("GET") and line.endswith(f"/{name}") for line in self.asked)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked.append(f"{self.command} /{path}")
        if self.hub.is_down:
            self._fail(503, "")
            return
        assert "Authorization" not in self.headers, "users do not fetch with the server's token"
        if path.startswith("api/"):
            self._answer_api(path.removeprefix("api/"))
        else:
            kind, _, rest = path.partition("/")
            is_data = kind == "datasets"
            self._answer_file(rest if is_data else path, "datasets" if is_data else "models")

    def _answer_api(self, path: str) -> None:
        kind, owner, name, *rest = path.split("/")
        repo = f"{kind}/{owner}/{name}"
        if repo not in self.hub.repos:
            self._fail(404, "RepoNotFound")
            return
        what, revision, *folder = rest or ["revision", "main"]
        files = self._files(repo, revision)
        if files is None:
            self._fail(404, "RevisionNotFound")
        elif what == "revision":
            commit = self.hub.branches.get(revision, revision)
            self._send(json.dumps({"id": f"{owner}/{name}", "sha": commit}).encode())
        else:
            self._send(json.dumps(self._tree(files, "/".join(folder))).encode())

    def _files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        return self.hub.repos[repo].get(self.hub.branches.get(revision, revision))

    def _tree(self, files: dict[str, bytes], folder: str) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "path": name,
                "size": len(content),
                "oid": hashlib.sha1(content).hexdigest(),
                **self._lfs(name, content),
            }
            for name, content in files.items()
            if str(PurePosixPath(name).parent) == (folder or ".")
        ]

    def _lfs(self, name: str, content: bytes) -> dict[str, object]:
        if not name.endswith((".safetensors", ".bin", ".parquet")):
            return {}
        sha256 = self.hub.lying.get(name, hashlib.sha256(content).hexdigest())
        return {"lfs": {"oid": sha256, "size": len(content), "pointerSize": 134}}

    def _answer_file(self, path: str, kind: str) -> None:
        owner, name, _, revision, *rest = path.split("/")
        files = self.hub.repos.get(f"{kind}/{owner}/{name}", {}).get(revision, {})
        file = "/".join(rest)
        if file not in files:
            self._fail(404, "EntryNotFound")
            return
        content = files[file]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": revision}
        self._send(content, headers, is_held=file in self.hub.held)

    def _send(
        self, content: bytes, headers: dict[str, str] | None = None, *, is_held: bool = False
    ) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            if is_held:
                self.wfile.write(content[:-1])
                self.wfile.flush()
                self.hub.released.wait(60)
                content = content[-1:]
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # whoever asked was killed

    def _fail(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `asked` has it."""
