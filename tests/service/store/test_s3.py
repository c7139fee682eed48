"""What is S3's own: parts, missing buckets, broken connections, the prefix."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.settings import Settings
from service.store.cache import BlobCache
from service.store.opening import open_store
from service.store.protocol import BlobDamaged, StoreUnavailable
from service.store.s3 import S3Store
from tests.s3_server import S3Server
from tests.service.store.conftest import PART_BYTES

LARGE = os.urandom(2 * PART_BYTES + 17)
LARGE_SHA256 = hashlib.sha256(LARGE).hexdigest()


def test_a_bucket_that_is_missing_is_named(s3_server: S3Server, cache: BlobCache) -> None:
    store = S3Store("nobody-made-it", cache=cache, endpoint_url=s3_server.url)
    for use in (
        store.check,
        lambda: store.put_bytes(b"x"),
        lambda: store.open_range("0" * 64, 0, 1),
        lambda: list(store.list_blobs()),
    ):
        with pytest.raises(StoreUnavailable, match=r"no bucket 'nobody-made-it'; create it"):
            use()


def test_a_server_that_is_away_is_told(cache: BlobCache, s3_server: S3Server) -> None:
    del s3_server  # its credentials are wanted, not itself
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    store = S3Store("bucket", cache=cache, endpoint_url=f"http://127.0.0.1:{port}")
    with pytest.raises(StoreUnavailable, match="cannot write to the bucket 'bucket'"):
        store.put_bytes(b"x")


def test_other_objects_of_the_bucket_are_none_of_ours(
    s3_store: S3Store, s3_server: S3Server
) -> None:
    sha256 = s3_store.put_bytes(b"ours")
    client = s3_server.client()
    for key in (f"ab/{'ab' * 32}", "snug/net/ab/notes.txt", f"snug/net/{'ab' * 32}", "snug/x"):
        client.put_object(Bucket=s3_store.bucket, Key=key, Body=b"x")
    assert [blob.sha256 for blob in s3_store.list_blobs()] == [sha256]
    found = client.get_object(Bucket=s3_store.bucket, Key=f"snug/net/{sha256[:2]}/{sha256}")
    assert found["Body"].read() == b"ours"


def test_a_large_file_is_sent_in_parts(
    s3_store: S3Store, s3_server: S3Server, tmp_path: Path
) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(LARGE)
    s3_store.put(source)
    key = f"snug/net/{LARGE_SHA256[:2]}/{LARGE_SHA256}"
    etag = s3_server.client().head_object(Bucket=s3_store.bucket, Key=key)["ETag"]
    assert etag.strip('"').endswith("-3")


def test_parts_that_were_never_completed_are_listed_and_can_be_discarded(
    s3_store: S3Store, s3_server: S3Server
) -> None:
    client = s3_server.client()
    place = {"Bucket": s3_store.bucket, "Key": f"snug/net/ab/{'ab' * 32}"}
    upload = client.create_multipart_upload(**place)["UploadId"]
    client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"x" * 1000)
    (left,) = s3_store.list_unfinished()
    assert left.size_bytes == 1000
    assert list(s3_store.list_blobs()) == []
    s3_store.discard(left)
    s3_store.discard(left)
    assert list(s3_store.list_unfinished()) == []


def test_an_object_that_was_changed_is_never_handed_out(
    s3_store: S3Store, s3_server: S3Server, cache: BlobCache
) -> None:
    sha256 = s3_store.put_bytes(b"weights")
    key = f"snug/net/{sha256[:2]}/{sha256}"
    s3_server.client().put_object(Bucket=s3_store.bucket, Key=key, Body=b"wejghts")
    with pytest.raises(BlobDamaged, match=sha256):
        s3_store.path(sha256)
    assert [path for path in cache.root.glob("??/*") if path.is_file()] == []


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    s3_store: S3Store, s3_server: S3Server, cache: BlobCache
) -> None:
    s3_store.put_bytes(LARGE)
    with breaking_after(s3_server.url, 1_500_000) as (url, num_connections):
        store = S3Store(s3_store.bucket, "snug/net", cache=cache, endpoint_url=url)
        found = b"".join(store.open_range(LARGE_SHA256, 5, 4_000_005))
        assert found == LARGE[5:4_000_005]
        assert len(num_connections) == 3
        with pytest.raises(StoreUnavailable, match="broke off"):
            list(store.open_range(LARGE_SHA256, 0, len(LARGE)))


@contextmanager
def breaking_after(url: str, num_bytes: int) -> Iterator[tuple[str, list[int]]]:
    """A proxy that cuts each connection after so many bytes of the answer."""
    target = urlsplit(url)
    connections: list[int] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            connections.append(1)
            threading.Thread(target=carry, args=(client,), daemon=True).start()

    def carry(client: socket.socket) -> None:
        server = socket.create_connection((target.hostname, target.port))
        with client, server, suppress(OSError):  # the reader may have gone
            server.sendall(client.recv(65536))
            left = num_bytes
            while left and (piece := server.recv(min(left, 65536))):
                client.sendall(piece)
                left -= len(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
        listener.shutdown(socket.SHUT_RDWR)


def test_the_settings_name_the_store(s3_server: S3Server, tmp_path: Path) -> None:
    bucket = s3_server.new_bucket()
    settings = Settings(
        data_dir=tmp_path, artifacts_url=f"s3://{bucket}/a/b", s3_endpoint_url=s3_server.url
    )
    store = open_store(settings)
    store.check()
    sha256 = store.put_bytes(b"x")
    listed = s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert [found["Key"] for found in listed] == [f"a/b/{sha256[:2]}/{sha256}"]
    assert store.path(sha256) == tmp_path / "cache" / sha256[:2] / sha256
