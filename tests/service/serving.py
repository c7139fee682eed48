"""The real application with a key and a device, and clients that talk to it without a network."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api.app import create_app, make_parts
from service.client import Client
from service.database.db import Database
from service.devices.devices import register_device
from service.settings import Settings
from service.steps.queue import InMemoryQueue, JobQueue
from service.tenants.auth import create_key
from service.tenants.tenancy import DEFAULT_TENANT
from service.uploads.checks.inspector import Inspector
from service.uploads.checks.reading import Reading, read_here
from tests.search.model.folders import write_model
from tests.service.measuring import IDENTITY


class ReaderHere(Inspector):
    """Reads uploads as ever, but in this process: for tests of other things."""

    def __init__(self) -> None:
        pass

    def inspect(self, reading: Reading, **_: Any) -> dict[str, Any]:
        return read_here(reading)


_idle_apps: list[FastAPI] = []


@contextmanager
def application(
    settings: Settings, queue: JobQueue | None = None, *, reads_apart: bool = False
) -> Iterator[FastAPI]:
    """The real one. FastAPI prepares its routes when they are first asked for, which takes long:
    the next test gets the same one, with other parts.

    Args:
        reads_apart: uploads are read by a process of their own each.
    """
    queue = queue or InMemoryQueue()
    if settings.log_requests:  # what its routes are wrapped in knows that
        yield create_app(settings, queue)
        return
    if _idle_apps:
        app = _idle_apps.pop()
        app.state.parts = make_parts(settings, queue)
    else:
        app = create_app(settings, queue)
    if not reads_apart:
        app.state.parts.checker.inspector = ReaderHere()
    yield app
    _idle_apps.append(app)


@contextmanager
def serving(settings: Settings, *, reads_apart: bool = False) -> Iterator[TestClient]:
    """A test client that is logged in; its app runs with its dispatcher."""
    with (
        application(settings, reads_apart=reads_apart) as app,
        signed_in(app, new_key(settings)) as http,
    ):
        yield http


def signed_in(app: FastAPI, key: str) -> TestClient:
    """The same; until it is entered, nothing runs beside the requests."""
    http = TestClient(app, raise_server_exceptions=False)
    http.headers["Authorization"] = f"Bearer {key}"
    return http


def close(app: FastAPI) -> None:
    """Of clients that were never entered."""
    app.state.parts.key_uses.close()
    app.state.parts.database.dispose()


def new_key(settings: Settings) -> str:
    database = Database(settings.database_url).for_tenant(DEFAULT_TENANT)
    with database.write() as session:
        key = create_key(session, "test")
        register_device(session, "this-cpu", IDENTITY)
    database.dispose()
    return key


@contextmanager
def listening(settings: Settings, queue: JobQueue | None = None) -> Iterator[tuple[str, str]]:
    """The application on a real socket, in a thread: its URL and a key."""
    with (
        application(settings, queue) as app,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        config = uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", new_key(settings)
        finally:
            app.state.parts.notifier.close()
            server.should_exit = True
            thread.join()


class TestTransport(httpx.BaseTransport):
    """Carries the SDK's requests to a test client: two libraries with one protocol."""

    __test__ = False

    def __init__(self, http: TestClient) -> None:
        self.http = http

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self.http.request(
            request.method,
            request.url.raw_path.decode(),
            headers={k: v for k, v in request.headers.items() if k != "host"},
            content=request.read(),
        )
        headers = [(k, v) for k, v in answer.headers.items() if k != "content-encoding"]
        return httpx.Response(answer.status_code, headers=headers, content=answer.content)


def sdk(http: TestClient, **options: Any) -> Client:
    key = http.headers["Authorization"].removeprefix("Bearer ")
    options = {"backoff_s": 0.001, "transport": TestTransport(http), **options}
    return Client("http://testserver", key, **options)


def app_of(http: TestClient) -> FastAPI:
    assert isinstance(http.app, FastAPI)
    return http.app


def write_data(path: Path, num_rows: int = 40, header: str = "text,label") -> Path:
    rows = [f"text {i},{'good' if i % 2 else 'bad'}" for i in range(num_rows)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def upload_both(client: Client, folder: Path) -> dict[str, Any]:
    """A spec, as small as it gets, of a tiny model and tiny data."""
    model = client.upload_folder(write_model(folder / "model"))
    data = client.upload_file(write_data(folder / "data.csv"))
    return {
        "model": {"upload": model.id},
        "data": {"upload": data.id},
        "targets": [{"budget_ratio": 0.5, "workload": {"seq_len": 16}}],
        "training": {"max_seq_len": 16},
    }


def files_in(folder: Path) -> set[str]:
    """Every file of a data directory but the database's own."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("snugnet.db")
    }
