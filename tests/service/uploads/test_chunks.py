"""Files that arrive in chunks: in any order, as often as need be, and whole in the end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from search.errors import InvalidInput
from service.database.db import Database
from service.database.models import UploadChunk
from service.settings import Settings
from service.uploads import uploads
from service.uploads.chunks import read_digest, write_digest
from tests.service.serving import files_in, serving
from tests.service.uploads.test_uploads import declare

CHUNK = 1000


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr("service.uploads.chunks.CHUNK_BYTES", CHUNK)


def rows(num_rows: int = 200) -> bytes:
    lines = [f"text {i},{'good' if i % 2 else 'bad'}" for i in range(num_rows)]
    return ("text,label\n" + "\n".join(lines) + "\n").encode()


CONTENT = rows()
PIECES = [CONTENT[i : i + CHUNK] for i in range(0, len(CONTENT), CHUNK)]


def send(
    http: TestClient, upload_id: str, index: int, content: Any = None, digest: str | None = None
) -> Any:
    content = PIECES[index] if content is None else content
    if digest is None:
        digest = write_digest(hashlib.sha256(PIECES[index]).hexdigest())
    path = f"/v1/uploads/{upload_id}/files/d.csv/chunks/{index}"
    return http.put(path, content=content, headers={"Content-Digest": digest})


def file_of(http: TestClient, upload_id: str) -> dict[str, Any]:
    (file,) = http.get(f"/v1/uploads/{upload_id}").json()["files"]
    return dict(file)


def chunk_rows(database: Database) -> list[UploadChunk]:
    with database.read() as session:
        return list(session.scalars(select(UploadChunk)))


def test_chunks_in_any_order_become_the_file(
    http: TestClient, settings: Settings, database: Database
) -> None:
    upload_id = declare(http, CONTENT)
    assert http.get(f"/v1/uploads/{upload_id}").json()["chunk_bytes"] == CHUNK
    for index in reversed(range(len(PIECES))):
        assert send(http, upload_id, index).status_code == 204
    answer = http.post(f"/v1/uploads/{upload_id}/finalize")
    assert (answer.status_code, answer.json()["state"]) == (200, "ready")
    assert answer.json()["summary"]["num_rows"] == 200
    assert answer.json()["files"][0]["received"]
    (stored,) = files_in(settings.data_dir)
    assert (settings.data_dir / stored).read_bytes() == CONTENT
    assert not chunk_rows(database)


def test_an_upload_goes_on_where_it_broke_off(http: TestClient, settings: Settings) -> None:
    upload_id = declare(http, CONTENT)
    for index in (0, 2):
        send(http, upload_id, index)
    answer = http.post(f"/v1/uploads/{upload_id}/finalize")
    assert (answer.status_code, answer.json()["detail"]) == (409, "not received yet: d.csv")
    # Another process of the API, or the same one after a restart.
    with serving(settings, reads_apart=True) as other:
        found = file_of(other, upload_id)
        assert (found["received"], found["chunks_received"]) == (False, [0, 2])
        for index in set(range(len(PIECES))) - {0, 2}:
            send(other, upload_id, index)
        assert other.post(f"/v1/uploads/{upload_id}/finalize").json()["state"] == "ready"


def test_a_chunk_that_is_sent_again_changes_nothing(
    http: TestClient, settings: Settings, database: Database
) -> None:
    upload_id = declare(http, CONTENT)
    for _ in range(3):
        assert send(http, upload_id, 1).status_code == 204
    assert len(chunk_rows(database)) == len(files_in(settings.data_dir)) == 1


def test_another_content_takes_the_place_of_the_one_before(
    http: TestClient, settings: Settings
) -> None:
    upload_id = declare(http, CONTENT)
    wrong = b"x" * CHUNK
    digest = write_digest(hashlib.sha256(wrong).hexdigest())
    assert send(http, upload_id, 0, wrong, digest).status_code == 204
    send(http, upload_id, 0)
    (stored,) = files_in(settings.data_dir)
    assert (settings.data_dir / stored).read_bytes() == PIECES[0]


def test_chunks_that_are_another_file_together_are_refused_and_leave_nothing(
    http: TestClient, settings: Settings
) -> None:
    upload_id = declare(http, CONTENT)
    wrong = b"x" * CHUNK
    for index in range(1, len(PIECES)):
        send(http, upload_id, index)
    send(http, upload_id, 0, wrong, write_digest(hashlib.sha256(wrong).hexdigest()))
    answer = http.post(f"/v1/uploads/{upload_id}/finalize")
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"field": "d.csv", "reason": "arrived with another SHA-256 than declared"}
    ]
    assert not files_in(settings.data_dir)
    upload = http.get(f"/v1/uploads/{upload_id}").json()
    assert (upload["state"], upload["files"]) == ("failed", [])
    assert upload["error"]["field"] == "d.csv"


def test_a_chunk_that_two_files_share_stays_until_neither_needs_it(
    http: TestClient, settings: Settings
) -> None:
    first, second = declare(http, CONTENT), declare(http, rows(150))
    send(http, first, 0)
    send(http, second, 0)
    assert len(files_in(settings.data_dir)) == 1
    http.delete(f"/v1/uploads/{first}")
    assert len(files_in(settings.data_dir)) == 1
    http.delete(f"/v1/uploads/{second}")
    assert not files_in(settings.data_dir)


def in_pieces(content: bytes) -> Iterator[bytes]:
    """Without a Content-Length."""
    yield from (content[i : i + 7] for i in range(0, len(content), 7))


@pytest.mark.parametrize("is_announced", [True, False])
@pytest.mark.parametrize("is_chunk", [True, False])
def test_too_much_is_refused_with_and_without_a_length(
    http: TestClient, settings: Settings, is_announced: bool, is_chunk: bool
) -> None:
    content = b"x" * ((CHUNK if is_chunk else len(CONTENT)) + 1)
    body = content if is_announced else in_pieces(content)
    upload_id = declare(http, CONTENT)
    if is_chunk:
        answer = send(http, upload_id, 0, body)
    else:
        answer = http.put(f"/v1/uploads/{upload_id}/files/d.csv", content=body)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "too_large"
    assert answer.json()["errors"][0]["field"] == "d.csv"
    assert not files_in(settings.data_dir)


@pytest.mark.parametrize(
    ("index", "content", "digest", "status", "field", "reason"),
    [
        (0, PIECES[0][:-1], None, 422, "d.csv", "has 999 bytes, 1000 were declared"),
        (0, PIECES[1], None, 422, "d.csv", "arrived with another SHA-256"),
        (0, PIECES[0], "sha-512=:AAAA:", 422, "Content-Digest", "as sha-256=:<base64>:"),
        (0, PIECES[0], "sha-256=abc", 422, "Content-Digest", "as sha-256=:<base64>:"),
        (len(PIECES), b"x", "", 422, "index", f"from 0 to {len(PIECES) - 1}"),
        (2**31, b"x", "", 422, "index", ""),
        (-1, b"x", "", 422, "index", ""),
    ],
)
def test_a_chunk_that_is_none_is_refused(
    http: TestClient,
    settings: Settings,
    index: int,
    content: bytes,
    digest: str | None,
    status: int,
    field: str,
    reason: str,
) -> None:
    upload_id = declare(http, CONTENT)
    answer = send(http, upload_id, index, content, digest)
    assert answer.status_code == status
    assert answer.json()["errors"][0]["field"] == field
    assert reason in answer.json()["errors"][0]["reason"]
    assert not files_in(settings.data_dir)


def test_chunks_go_to_open_uploads_and_declared_files_only(http: TestClient) -> None:
    upload_id = declare(http, CONTENT)
    path, headers = f"/v1/uploads/{upload_id}/files", {"Content-Digest": "sha-256=:x:"}
    assert http.put(f"{path}/e.csv/chunks/0", content=b"", headers=headers).status_code == 404
    answer = http.put(f"{path}/d.csv/chunks/0", content=b"")
    assert answer.json()["errors"][0]["field"] == "Content-Digest"
    http.put(f"{path}/d.csv", content=CONTENT)
    http.post(f"/v1/uploads/{upload_id}/finalize")
    assert send(http, upload_id, 0).status_code == 409


def test_a_digest_is_read_as_it_is_written_beside_others_too() -> None:
    sha256 = hashlib.sha256(b"x").hexdigest()
    assert read_digest(write_digest(sha256)) == sha256
    assert read_digest(f"sha-512=:AAAA:, {write_digest(sha256)};p=1") == sha256
    with pytest.raises(InvalidInput):
        read_digest(f"x{write_digest(sha256)}")


def test_a_chunk_that_is_noted_while_its_upload_is_discarded_leaves_nothing(
    http: TestClient, settings: Settings, database: Database
) -> None:
    for _ in range(5):
        upload_id = declare(http, CONTENT)
        senders = [Thread(target=send, args=(http, upload_id, i)) for i in range(len(PIECES))]
        for sender in senders:
            sender.start()
        assert http.delete(f"/v1/uploads/{upload_id}").status_code == 204
        for sender in senders:
            sender.join()
        assert not files_in(settings.data_dir)
        assert not chunk_rows(database)
