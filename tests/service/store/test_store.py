"""What every store keeps to: the one suite for a folder and for a bucket of a real server."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from search.errors import InvalidInput
from service.store.protocol import ArtifactStore, BlobDamaged, BlobNotFound
from tests.service.store.conftest import PART_BYTES

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LARGE = os.urandom(1000) * (2 * PART_BYTES // 1000 + 17)  # three parts
LARGE_SHA256 = hashlib.sha256(LARGE).hexdigest()


def names(store: ArtifactStore) -> list[str]:
    return sorted(blob.sha256 for blob in store.list_blobs())


def read(store: ArtifactStore, sha256: str, start: int, stop: int) -> bytes:
    return b"".join(store.open_range(sha256, start, stop))


def test_a_store_that_works_passes_its_check(store: ArtifactStore) -> None:
    store.check()


@pytest.mark.parametrize("content", [CONTENT, LARGE, b""], ids=["small", "large", "empty"])
@pytest.mark.parametrize("is_known", [False, True])
def test_a_file_is_named_by_its_content(
    store: ArtifactStore, tmp_path: Path, content: bytes, is_known: bool
) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    assert not store.exists(sha256)
    assert store.put(source, sha256 if is_known else None) == sha256
    assert store.exists(sha256)
    assert store.size_bytes(sha256) == len(content)
    assert store.path(sha256).read_bytes() == content
    assert read(store, sha256, 0, len(content)) == content
    assert source.read_bytes() == content


def test_bytes_are_stored_like_files(store: ArtifactStore) -> None:
    assert store.put_bytes(CONTENT) == SHA256
    assert store.path(SHA256).read_bytes() == CONTENT


def test_equal_content_is_stored_once(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "again"
    source.write_bytes(CONTENT)
    hashes = [
        store.put_bytes(CONTENT),
        store.put_bytes(CONTENT),
        store.put(source),
        store.put(source, SHA256),
    ]
    assert set(hashes) == {SHA256}
    assert names(store) == [SHA256]


@pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["small", "large"])
def test_content_of_another_name_is_refused_and_leaves_nothing(
    store: ArtifactStore, tmp_path: Path, content: bytes
) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(content)
    with pytest.raises(BlobDamaged):
        store.put(source, "0" * 64)
    assert names(store) == []
    assert list(store.list_unfinished()) == []


def test_what_arrives_in_pieces_is_stored_at_the_end(store: ArtifactStore) -> None:
    with store.receive(len(LARGE)) as writer:
        for start in range(0, len(LARGE), 1_000_003):
            writer.write(LARGE[start : start + 1_000_003])
        assert names(store) == []
    assert (writer.sha256, writer.size_bytes) == (LARGE_SHA256, len(LARGE))
    assert store.path(LARGE_SHA256).read_bytes() == LARGE
    assert list(store.list_unfinished()) == []


def test_what_breaks_off_leaves_nothing(store: ArtifactStore) -> None:
    def receive_half() -> None:
        with store.receive() as writer:
            writer.write(CONTENT[:100])
            raise RuntimeError("the connection broke")

    with pytest.raises(RuntimeError):
        receive_half()
    assert names(store) == []
    assert list(store.list_unfinished()) == []


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 1), (0, len(LARGE)), (3, 3), (PART_BYTES - 1, PART_BYTES + 1), (1, 3_000_000)],
)
def test_a_range_is_exactly_those_bytes(store: ArtifactStore, start: int, stop: int) -> None:
    store.put_bytes(LARGE)
    assert read(store, LARGE_SHA256, start, stop) == LARGE[start:stop]


def test_a_range_that_nobody_reads_to_its_end_is_no_trouble(store: ArtifactStore) -> None:
    store.put_bytes(LARGE)
    pieces = store.open_range(LARGE_SHA256, 0, len(LARGE))
    assert LARGE.startswith(next(pieces))
    del pieces
    assert read(store, LARGE_SHA256, 0, 4) == LARGE[:4]


def test_a_missing_blob_is_told_before_anything_is_read(store: ArtifactStore) -> None:
    for ask in (
        store.path,
        store.size_bytes,
        lambda sha256: store.open_range(sha256, 0, 9),
        lambda sha256: store.open_range(sha256, 0, 0),
    ):
        with pytest.raises(BlobNotFound, match=SHA256):
            ask(SHA256)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", SHA256.upper(), SHA256[:-1]])
def test_only_digests_name_blobs(store: ArtifactStore, name: str) -> None:
    for ask in (store.exists, store.path, store.size_bytes, store.delete):
        with pytest.raises(InvalidInput):
            ask(name)


def test_a_deleted_blob_is_gone_and_deleting_it_twice_does_no_harm(store: ArtifactStore) -> None:
    store.put_bytes(CONTENT)
    store.path(SHA256)
    store.delete(SHA256)
    store.delete(SHA256)
    assert not store.exists(SHA256)
    with pytest.raises(BlobNotFound):
        store.path(SHA256)


def test_blobs_are_listed_with_their_sizes_and_times(store: ArtifactStore) -> None:
    before = time.time()
    hashes = {store.put_bytes(f"{n}".encode() * n): n for n in range(1, 6)}
    found = list(store.list_blobs())
    assert {blob.sha256: blob.size_bytes for blob in found} == hashes
    # S3 tells whole seconds.
    assert all(before - 2 <= blob.modified_at <= time.time() + 2 for blob in found)


def test_one_blob_put_and_read_by_many_at_once_is_whole(
    store: ArtifactStore, tmp_path: Path
) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(LARGE)
    start = threading.Barrier(6)

    def put_and_read(_: int) -> bytes:
        start.wait()
        return store.path(store.put(source)).read_bytes()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(put_and_read, range(6))) == {LARGE}
    assert names(store) == [LARGE_SHA256]
