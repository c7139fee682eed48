"""Blobs as files in a folder, on a disk that all processes share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.store.digest import HashingWriter
from service.store.protocol import (
    PIECE_BYTES,
    SHA256,
    ArtifactStore,
    BlobDamaged,
    BlobNotFound,
    StoredBlob,
    StoreUnavailable,
    Unfinished,
    check_name,
)
from service.store.space import check_room, full_told

INCOMING = "incoming"


class FilesystemStore:
    """`<root>/ab/<sha256>`: written beside its place, synced, then renamed, so that no reader and
    no crash ever sees half a blob.

    Args:
        reserve_bytes: what a put has to leave free on the disk.
    """

    def __init__(self, root: Path, *, reserve_bytes: int = 0) -> None:
        self.root = root
        self._reserve_bytes = reserve_bytes

    def check(self) -> None:
        try:
            self._incoming().mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"{self.root} cannot be written: {error.strerror}") from None

    def put(self, source: Path, sha256: str | None = None) -> str:
        size_bytes = source.stat().st_size
        if sha256 is not None and self._has(sha256, size_bytes):
            return sha256
        with source.open("rb") as stream, self.receive(size_bytes) as writer:
            shutil.copyfileobj(stream, writer, PIECE_BYTES)
            if sha256 not in (None, writer.sha256):
                raise BlobDamaged(f"{source.name} is not {sha256}")
        return writer.sha256

    def put_bytes(self, content: bytes) -> str:
        with self.receive(len(content)) as writer:
            writer.write(content)
        return writer.sha256

    @contextmanager
    def receive(self, expected_bytes: int = 0) -> Iterator[HashingWriter]:
        incoming = self._incoming()
        check_room(incoming, expected_bytes, self._reserve_bytes)
        with full_told(incoming), _temporary_file(incoming) as temporary:
            with temporary.open("wb") as stream:
                writer = HashingWriter(stream)
                yield writer
                stream.flush()
                os.fsync(stream.fileno())
            self._move_into_place(temporary, writer.sha256)

    def path(self, sha256: str) -> Path:
        place = self._place(sha256)
        if not place.is_file():
            raise BlobNotFound(sha256)
        return place

    def open_range(self, sha256: str, start: int, stop: int) -> Iterator[bytes]:
        file = self.path(sha256).open("rb")

        def pieces() -> Iterator[bytes]:
            with file:
                file.seek(start)
                left = stop - start
                while left and (piece := file.read(min(PIECE_BYTES, left))):
                    left -= len(piece)
                    yield piece

        return pieces()

    def exists(self, sha256: str) -> bool:
        return self._place(sha256).is_file()

    def size_bytes(self, sha256: str) -> int:
        return self.path(sha256).stat().st_size

    def delete(self, sha256: str) -> None:
        self._place(sha256).unlink(missing_ok=True)

    def list_blobs(self) -> Iterator[StoredBlob]:
        for place in self.root.glob("??/*"):
            if SHA256.fullmatch(place.name) and (found := _stat(place)) is not None:
                yield StoredBlob(
                    sha256=place.name, size_bytes=found.st_size, modified_at=found.st_mtime
                )

    def list_unfinished(self) -> Iterator[Unfinished]:
        for place in self._incoming().glob("*"):
            if (found := _stat(place)) is not None:
                yield Unfinished(
                    name=place.name, size_bytes=found.st_size, modified_at=found.st_mtime
                )

    def discard(self, unfinished: Unfinished) -> None:
        (self._incoming() / Path(unfinished.name).name).unlink(missing_ok=True)

    def _incoming(self) -> Path:
        return self.root / INCOMING

    def _has(self, sha256: str, size_bytes: int) -> bool:
        found = _stat(self._place(sha256))
        return found is not None and found.st_size == size_bytes

    def _place(self, sha256: str) -> Path:
        return self.root / check_name(sha256)[:2] / sha256

    def _move_into_place(self, temporary: Path, sha256: str) -> None:
        place = self._place(sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.chmod(0o444)
        temporary.replace(place)
        _sync_directory(place.parent)


@contextmanager
def _temporary_file(folder: Path) -> Iterator[Path]:
    """Gone at the end, unless it was moved away."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_a_store(store: FilesystemStore) -> ArtifactStore:
    """For the type checker alone."""
    return store
