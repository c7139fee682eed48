"""Files over HTTP, whole and in part, from a folder and from a bucket of a real server."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.artifacts import blobs
from service.artifacts.artifacts import record_artifacts
from service.database.db import Database
from service.settings import Settings
from service.steps.step_types import NewArtifact
from service.store.opening import open_store
from service.store.protocol import ArtifactStore
from tests.s3_server import S3Server
from tests.service.helpers import create_job
from tests.service.serving import serving
from tests.service.store.conftest import STORES

CONTENT = os.urandom(3_000_000)  # several pieces
SIZE = len(CONTENT)


@pytest.fixture(params=STORES)
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    if request.param == "filesystem":
        return settings
    server: S3Server = request.getfixturevalue("s3_server")
    url = f"s3://{server.new_bucket()}/snugnet"
    return settings.model_copy(update={"artifacts_url": url, "s3_endpoint_url": server.url})


@pytest.fixture
def store(settings: Settings) -> ArtifactStore:
    return open_store(settings)


@pytest.fixture
def database_url(data_dir: os.PathLike[str]) -> str:
    """One dialect is enough: it is the store that differs."""
    return f"sqlite:///{data_dir}/snugnet.db"


def recorded(
    database: Database, store: ArtifactStore, content: bytes, name: str = "onnx/model.onnx"
) -> str:
    """The URL of a new artifact's content."""
    job_id = create_job(database)
    artifact = NewArtifact(
        name=name, sha256=store.put_bytes(content), size_bytes=len(content), media_type="text/x"
    )
    with database.write() as session:
        (row,) = record_artifacts(session, job_id, [artifact])
        return f"/v1/artifacts/{row.id}/content"


@pytest.fixture
def url(database: Database, store: ArtifactStore) -> str:
    return recorded(database, store, CONTENT)


def etag(http: TestClient, url: str) -> str:
    return str(http.get(url).headers["etag"])


def test_the_whole_file_is_described_by_its_headers(
    http: TestClient, url: str, store: ArtifactStore
) -> None:
    answer = http.get(url)
    assert answer.status_code == 200
    assert answer.content == CONTENT
    (blob,) = store.list_blobs()
    assert answer.headers["etag"] == f'"sha256-{blob.sha256}"'
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"].startswith("text/x")
    assert answer.headers["content-disposition"] == 'attachment; filename="model.onnx"'


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=2-4", 2, 5),
        ("bytes=1000000-2999999", 1_000_000, SIZE),
        ("bytes=2999999-", SIZE - 1, SIZE),
        ("bytes=0-99999999", 0, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        ("bytes=-99999999", 0, SIZE),
    ],
)
def test_a_range_is_answered_with_exactly_its_bytes(
    http: TestClient, url: str, asked: str, start: int, stop: int
) -> None:
    answer = http.get(url, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == CONTENT[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=3000000-", "bytes=9999999-9999999", "bytes=-0"])
def test_a_range_beyond_the_end_is_told_the_size(http: TestClient, url: str, asked: str) -> None:
    answer = http.get(url, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=-", "bytes=a-b", "items=0-1", "bytes=0-1,5-6", "bytes=0-1-2"]
)
def test_a_range_that_is_none_or_several_gives_the_whole(
    http: TestClient, url: str, asked: str
) -> None:
    answer = http.get(url, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_a_range_of_another_version_gives_the_whole(http: TestClient, url: str) -> None:
    same = http.get(url, headers={"Range": "bytes=0-1", "If-Range": etag(http, url)})
    assert (same.status_code, same.content) == (206, CONTENT[:2])
    for other in ('"sha256-0"', f"W/{etag(http, url)}", "Wed, 21 Oct 2026 07:28:00 GMT"):
        answer = http.get(url, headers={"Range": "bytes=0-1", "If-Range": other})
        assert (answer.status_code, answer.content) == (200, CONTENT)


def test_unchanged_content_is_not_sent_again(http: TestClient, url: str) -> None:
    tag = etag(http, url)
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = http.get(url, headers={"If-None-Match": known, "Range": "bytes=99999999-"})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
    assert http.get(url, headers={"If-None-Match": '"x"'}).status_code == 200


def test_an_empty_file_is_whole_and_has_no_ranges(
    http: TestClient, database: Database, store: ArtifactStore
) -> None:
    url = recorded(database, store, b"")
    whole = http.get(url)
    assert (whole.status_code, whole.content) == (200, b"")
    assert http.get(url, headers={"Range": "bytes=0-"}).status_code == 416


def test_a_name_that_is_no_plain_word_is_quoted(
    http: TestClient, database: Database, store: ArtifactStore
) -> None:
    url = recorded(database, store, b"x", name='größe "x"\r\n.bin')
    disposition = http.get(url).headers["content-disposition"]
    assert disposition == "attachment; filename*=utf-8''gr%C3%B6%C3%9Fe%20%22x%22%0D%0A.bin"


def test_a_file_whose_blob_is_gone_is_not_found(
    http: TestClient, url: str, store: ArtifactStore
) -> None:
    (blob,) = store.list_blobs()
    store.delete(blob.sha256)
    answer = http.get(url)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_the_digests_are_of_the_file_and_of_each_8_mib(
    http: TestClient, database: Database, store: ArtifactStore
) -> None:
    content = CONTENT * 6
    url = recorded(database, store, content).replace("/content", "/digests")
    expected: dict[str, Any] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "chunk_bytes": 8388608,
        "chunks": [
            hashlib.sha256(content[start : start + 8388608]).hexdigest()
            for start in range(0, len(content), 8388608)
        ],
    }
    assert len(expected["chunks"]) == 3
    assert http.get(url).json() == expected
    with database.write() as session:
        blobs.take(session, expected["sha256"])
    assert http.get(url).json() == expected
    store.delete(expected["sha256"])
    assert http.get(url).json() == expected  # noted meanwhile


def test_the_digests_of_what_is_not_there_are_not_found(
    http: TestClient, url: str, store: ArtifactStore
) -> None:
    (blob,) = store.list_blobs()
    store.delete(blob.sha256)
    assert http.get(url.replace("/content", "/digests")).status_code == 404
    assert http.get("/v1/artifacts/art_x/digests").status_code == 404


def test_an_upload_arrives_in_either_store(http: TestClient, store: ArtifactStore) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    file = {"name": "d.csv", "size_bytes": SIZE, "sha256": sha256}
    upload = http.post("/v1/uploads", json={"kind": "dataset", "files": [file]}).json()["id"]
    assert http.put(f"/v1/uploads/{upload}/files/d.csv", content=CONTENT).status_code == 204
    assert store.path(sha256).read_bytes() == CONTENT


def test_a_store_that_is_away_or_full_says_so(settings: Settings) -> None:
    if settings.artifacts_url:
        broken = {"artifacts_url": "s3://nobody-made-it"}
        expected = (503, "store_unavailable", "30")
    else:
        broken = {"reserve_bytes": 2**62}
        expected = (507, "store_full", None)
    with serving(settings.model_copy(update=broken)) as http:
        file = {"name": "d.csv", "size_bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
        upload = http.post("/v1/uploads", json={"kind": "dataset", "files": [file]}).json()["id"]
        answer = http.put(f"/v1/uploads/{upload}/files/d.csv", content=b"abc")
    assert (answer.status_code, answer.json()["code"], answer.headers.get("retry-after")) == (
        expected
    )
    assert "nobody-made-it" not in answer.text
