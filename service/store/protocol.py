"""What a store of blobs offers, whatever it is made of: files named by their SHA-256."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from search.errors import InvalidInput
from service.store.digest import HashingWriter

PIECE_BYTES = 1 << 20
"""How much is read, hashed and sent at a time."""
SHA256 = re.compile(r"[0-9a-f]{64}")


class BlobNotFound(Exception):
    """The store holds no blob of this name."""


class BlobDamaged(Exception):
    """What the store holds, or was given, is not what its name says."""


class StoreUnavailable(Exception):
    """The store cannot do this now, though nothing is wrong with what was asked: work that needs
    it waits, and is not given up."""


class StoreFull(StoreUnavailable):
    """There is no room for a blob, or too little would be left beside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBlob:
    """`modified_at` is in epoch seconds by the store's own clock."""

    sha256: str
    size_bytes: int
    modified_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Unfinished:
    """What a process that died while it stored something has left behind."""

    name: str
    size_bytes: int
    modified_at: float


class ArtifactStore(Protocol):
    """Blobs never change: a put of known content is cheap, and repeating one does no harm. Every
    method may be called by several threads and processes at once, and raises `StoreUnavailable`
    when the store is away or full; a put that fails leaves nothing that could be read.
    """

    def check(self) -> None:
        """Raises: StoreUnavailable when it could not be used, with what is wrong."""

    def put(self, source: Path, sha256: str | None = None) -> str:
        """Copy a file into the store and return its SHA-256.

        Args:
            sha256: where it is known already: content that is stored is not sent again.

        Raises:
            BlobDamaged: the file has another one.
        """

    def put_bytes(self, content: bytes) -> str: ...

    def receive(self, expected_bytes: int = 0) -> AbstractContextManager[HashingWriter]:
        """A blob that arrives in pieces: stored when the block ends, dropped when it raises.

        Args:
            expected_bytes: room to look for before the first piece is taken.
        """

    def path(self, sha256: str) -> Path:
        """A local file with the blob's content, for reading only; it stays for as long as a step
        or a request may last.

        Raises: BlobNotFound, BlobDamaged.
        """

    def open_range(self, sha256: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `stop`, in pieces.

        Raises: BlobNotFound, before the first piece.
        """

    def exists(self, sha256: str) -> bool: ...

    def size_bytes(self, sha256: str) -> int:
        """Raises: BlobNotFound."""

    def delete(self, sha256: str) -> None:
        """Remove a blob; nothing happens when it is gone already."""

    def list_blobs(self) -> Iterator[StoredBlob]:
        """In any order; what is put or deleted meanwhile may or may not be among them."""

    def list_unfinished(self) -> Iterator[Unfinished]: ...

    def discard(self, unfinished: Unfinished) -> None:
        """Remove it; nothing happens when it is gone already."""


def check_name(sha256: str) -> str:
    """Raises: InvalidInput, so that nothing else ever names a file or an object."""
    if not SHA256.fullmatch(sha256):
        raise InvalidInput("sha256", f"must be 64 hex digits, got {sha256!r}")
    return sha256
