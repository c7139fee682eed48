from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.store.filesystem import FilesystemStore
from service.store.protocol import StoreFull, StoreUnavailable


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    return FilesystemStore(tmp_path / "blobs")


def files_in(store: FilesystemStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


def test_a_blob_lies_under_its_name_and_cannot_be_written(store: FilesystemStore) -> None:
    sha256 = store.put_bytes(b"weights")
    place = store.root / sha256[:2] / sha256
    assert store.path(sha256) == place
    assert place.stat().st_mode & 0o777 == 0o444


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """The kernel refuses to make a file longer: as a full disk, in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_put_that_fails_for_lack_of_space_is_told_and_leaves_nothing(
    store: FilesystemStore, tmp_path: Path
) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(b"x" * 300_000)
    for put in (
        lambda: store.put(source),
        lambda: store.put_bytes(b"x" * 300_000),
    ):
        with files_limited_to(100_000), pytest.raises(StoreFull, match="full"):
            put()
        assert files_in(store) == []
    store.put(source)


def test_a_put_keeps_a_reserve_free(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "blobs", reserve_bytes=shutil.disk_usage("/").total * 2)
    source = tmp_path / "model.bin"
    source.write_bytes(b"x" * 100)
    with pytest.raises(StoreFull, match=r"nearly full: .* free, 0 MiB needed and .* in reserve"):
        store.put(source)
    assert not store.root.exists()


def test_a_folder_that_cannot_be_made_fails_the_check(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        FilesystemStore(tmp_path / "file" / "blobs").check()


def test_what_a_killed_process_left_is_listed_and_can_be_discarded(
    store: FilesystemStore,
) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from service.store.filesystem import FilesystemStore\n"
        "with FilesystemStore(Path(sys.argv[1])).receive() as writer:\n"
        "    writer.write(b'half' * 100_000); os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.root)], check=False)
    assert done.returncode == 9
    assert list(store.list_blobs()) == []
    (left,) = store.list_unfinished()
    store.discard(left)
    store.discard(left)
    assert list(store.list_unfinished()) == []
