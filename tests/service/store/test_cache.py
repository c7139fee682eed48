from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.store.cache import BlobCache
from service.store.digest import HashingWriter
from service.store.protocol import BlobDamaged

SIZE_BYTES = 1000


def content_of(name: str) -> bytes:
    return name.encode().ljust(SIZE_BYTES, b".")


def sha256_of(name: str) -> str:
    return hashlib.sha256(content_of(name)).hexdigest()


class Source:
    """Where blobs come from; counts how often each is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def fetching(self, name: str) -> Callable[[HashingWriter], None]:
        def fetch(writer: HashingWriter) -> None:
            self.asked.append(name)
            writer.write(content_of(name))

        return fetch

    def get(self, cache: BlobCache, name: str) -> Path:
        return cache.get(sha256_of(name), lambda: SIZE_BYTES, self.fetching(name))


def cache_of(tmp_path: Path, *, num_blobs: int, keep_seconds: float = 0.0) -> BlobCache:
    return BlobCache(
        tmp_path / "cache", limit_bytes=num_blobs * SIZE_BYTES, keep_seconds=keep_seconds
    )


def cached(cache: BlobCache) -> set[str]:
    return {path.name for path in cache.root.glob("??/*")}


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    cache, source = cache_of(tmp_path, num_blobs=3), Source()
    first = source.get(cache, "a")
    assert source.get(cache, "a") == first
    assert first.read_bytes() == content_of("a")
    assert source.asked == ["a"]


def test_what_was_asked_for_longest_ago_goes_first(tmp_path: Path) -> None:
    cache, source = cache_of(tmp_path, num_blobs=2), Source()
    for name, age_s in (("a", 30), ("b", 20)):
        path = source.get(cache, name)
        os.utime(path, (time.time() - age_s,) * 2)
    source.get(cache, "a")  # now b is the older one
    source.get(cache, "c")
    assert cached(cache) == {sha256_of("a"), sha256_of("c")}


def test_what_is_in_use_stays_even_beyond_the_limit(tmp_path: Path) -> None:
    cache, source = cache_of(tmp_path, num_blobs=1, keep_seconds=600.0), Source()
    paths = [source.get(cache, name) for name in "abc"]
    assert all(path.exists() for path in paths)
    for path in paths:
        os.utime(path, (time.time() - 601,) * 2)
    source.get(cache, "d")
    assert cached(cache) == {sha256_of("d")}


def test_what_is_fetched_must_be_what_was_asked_for(tmp_path: Path) -> None:
    cache, source = cache_of(tmp_path, num_blobs=3), Source()
    with pytest.raises(BlobDamaged):
        cache.get(sha256_of("a"), lambda: SIZE_BYTES, source.fetching("b"))
    assert cached(cache) == set()
    assert list((cache.root / "incoming").iterdir()) == []


READER = """
import sys
from pathlib import Path
from tests.service.store.test_cache import Source, cache_of, content_of
cache, source = cache_of(Path(sys.argv[1]), num_blobs=3, keep_seconds=60), Source()
for round in range(40):
    for name in "abcdef":
        assert source.get(cache, name).read_bytes() == content_of(name)
"""


def test_processes_that_read_and_evict_at_once_never_miss_a_file(tmp_path: Path) -> None:
    """Aged by one process all the while, so that the others evict in earnest."""
    readers = [subprocess.Popen([sys.executable, "-c", READER, str(tmp_path)]) for _ in range(3)]
    cache = cache_of(tmp_path, num_blobs=3, keep_seconds=60)
    while any(reader.poll() is None for reader in readers):
        for path in cache.root.glob("??/*"):
            if path.stat().st_mtime < time.time() - 0.2:
                os.utime(path, (time.time() - 100,) * 2)
        time.sleep(0.01)
    assert {reader.returncode for reader in readers} == {0}
