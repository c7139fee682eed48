"""Both stores: a folder, and a bucket of a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.store.cache import BlobCache
from service.store.filesystem import FilesystemStore
from service.store.protocol import ArtifactStore
from service.store.s3 import S3Store
from tests.s3_server import S3Server

PART_BYTES = 5 * 1024**2  # the least that S3 takes
STORES = ("filesystem", "s3")


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache", limit_bytes=100 * 1024**2, keep_seconds=0.0)


@pytest.fixture
def s3_store(s3_server: S3Server, cache: BlobCache) -> S3Store:
    return S3Store(
        s3_server.new_bucket(),
        "snug/net",
        cache=cache,
        endpoint_url=s3_server.url,
        part_bytes=PART_BYTES,
    )


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """Each test of the Protocol runs on either."""
    if request.param == "filesystem":
        return FilesystemStore(tmp_path / "blobs")
    found: S3Store = request.getfixturevalue("s3_store")
    return found
