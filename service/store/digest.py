"""SHA-256 of content as a whole and of each 8 MiB of it, in one pass."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 8 * 1024**2
"""A download that broke off is checked, and fetched again, in chunks of this size."""
READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Digest:
    """`chunks` are in the order of the content; of an empty file there are none."""

    sha256: str
    size_bytes: int
    chunks: tuple[str, ...]


class Writable(Protocol):
    def write(self, content: bytes, /) -> object: ...


class HashingWriter:
    """Counts and hashes what passes through on its way to somewhere else."""

    def __init__(self, stream: Writable | None = None) -> None:
        self._stream = stream
        self._whole = hashlib.sha256()
        self._chunk = hashlib.sha256()
        self._chunks: list[str] = []
        self.size_bytes = 0

    def write(self, content: bytes) -> int:
        if self._stream is not None:
            self._stream.write(content)
        self._whole.update(content)
        rest = memoryview(content)
        while rest:
            room = CHUNK_BYTES - self.size_bytes % CHUNK_BYTES
            part, rest = rest[:room], rest[room:]
            self._chunk.update(part)
            self.size_bytes += len(part)
            if len(part) == room:
                self._end_chunk()
        return len(content)

    @property
    def sha256(self) -> str:
        return self._whole.hexdigest()

    @property
    def digest(self) -> Digest:
        """Of all that was written so far."""
        rest = [self._chunk.hexdigest()] if self.size_bytes % CHUNK_BYTES else []
        return Digest(
            sha256=self.sha256, size_bytes=self.size_bytes, chunks=(*self._chunks, *rest)
        )

    def _end_chunk(self) -> None:
        self._chunks.append(self._chunk.hexdigest())
        self._chunk = hashlib.sha256()


def digest_of(path: Path) -> Digest:
    writer = HashingWriter()
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            writer.write(piece)
    return writer.digest
