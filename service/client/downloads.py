"""A file on its way from the server, that goes on where it stopped, and is verified."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import httpx

from service.client.calls import READ_BYTES
from service.client.errors import AlreadyDownloading, Corrupted
from service.schemas import ArtifactDigests

OnProgress = Callable[[Path, int], None]
"""Told of a file and how many of its bytes are here."""


class Download:
    """What has arrived stands in `part`, beside the target; a later process goes on from there.

    Args:
        path: of the content at the server.
        digests: by which damage is found early, and only that part fetched again.
    """

    def __init__(
        self,
        path: str,
        target: Path,
        sha256: str,
        digests: ArtifactDigests | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.path = path
        self.target = target
        self.part = target.with_name(f"{target.name}.{sha256[:12]}.part")
        self.is_complete = False
        self._furthest = 0
        self._sha256 = sha256
        self._digests = digests
        self._on_progress = on_progress
        self._file: BinaryIO | None = None
        self._num_bytes = 0
        self._chunks: _ChunkHasher | None = None

    def open(self) -> None:
        """Take up what is there already. Must be closed, by the end of a `with`.

        Raises:
            AlreadyDownloading: by another process, or thread.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open_locked(self.part)
        whole, num_good = self._check()
        self.is_complete = num_good > 0 and whole == self._sha256
        if not self.is_complete:
            self._keep(num_good)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # What is empty, or can never become right, helps nobody.
        if not self.is_complete and (self._num_bytes == 0 or isinstance(error, Corrupted)):
            self.part.unlink(missing_ok=True)
        self._opened.close()

    @property
    def num_bytes(self) -> int:
        """That have arrived, and are not known to be damaged."""
        return self._num_bytes

    @property
    def headers(self) -> Mapping[str, str]:
        """Of a request for what is missing."""
        identity = {"Accept-Encoding": "identity"}
        if self._num_bytes == 0:
            return identity
        return {**identity, "Range": f"bytes={self._num_bytes}-", "If-Range": self._etag}

    def begin(self, response: httpx.Response) -> bool:
        """Make ready for the content of the response; False when it has none.

        Raises:
            Corrupted: it is of another file or another range.
        """
        status = response.status_code
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._keep(0)
            raise Corrupted(f"{self.part.name} is longer than the file")
        if status not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            return False
        if response.headers.get("ETag", self._etag) != self._etag:
            raise Corrupted(f"the server has another {self.target.name} than it announced")
        if status == httpx.codes.OK:
            self._keep(0)
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {self._num_bytes}-"):
            raise Corrupted(f"another range of {self.target.name} came than was asked for")
        return True

    def write(self, content: bytes) -> bool:
        """Whether this is further than ever before.

        Raises:
            Corrupted: a chunk is not what it should be; it is dropped.
        """
        self._opened.write(content)
        self._num_bytes += len(content)
        if self._digests is not None and self._chunks is not None:
            for index, found in self._chunks.update(content):
                if index >= len(self._digests.chunks) or found != self._digests.chunks[index]:
                    self._keep(index * self._digests.chunk_bytes)
                    raise Corrupted(f"{self.target.name} arrived with another SHA-256")
        if self._on_progress is not None:
            self._on_progress(self.target, self._num_bytes)
        is_further = self._num_bytes > self._furthest
        self._furthest = max(self._furthest, self._num_bytes)
        return is_further

    def finish(self) -> None:
        """Check the whole, as it stands on the disk, and put it into its place.

        Raises:
            Corrupted: it is not what was announced; what is known to be good of it is kept.
        """
        self._opened.flush()
        if not self.is_complete:
            whole, num_good = self._check()
            if whole != self._sha256:
                self._keep(num_good if 0 < num_good < self._num_bytes else 0)
                raise Corrupted(f"{self.target.name} arrived with another SHA-256 than announced")
        self.part.replace(self.target)
        self.is_complete = True

    @property
    def _opened(self) -> BinaryIO:
        assert self._file is not None, "used as a context"
        return self._file

    @property
    def _etag(self) -> str:
        return f'"sha256-{self._sha256}"'

    def _check(self) -> tuple[str, int]:
        """SHA-256 of what is there, and the bytes from its begin on that are not known as bad."""
        whole = hashlib.sha256()
        hasher = _ChunkHasher(self._digests.chunk_bytes) if self._digests else None
        found: list[str] = []
        self._opened.seek(0)
        while content := self._opened.read(READ_BYTES):
            whole.update(content)
            found += [sha256 for _, sha256 in hasher.update(content)] if hasher else []
        if self._digests is None:
            return whole.hexdigest(), self._opened.tell()
        good = 0
        while good < min(len(found), len(self._digests.chunks)):
            if found[good] != self._digests.chunks[good]:
                break
            good += 1
        return whole.hexdigest(), good * self._digests.chunk_bytes

    def _keep(self, num_bytes: int) -> None:
        self._opened.flush()
        self._opened.truncate(num_bytes)
        self._num_bytes = num_bytes
        self._furthest = max(self._furthest, num_bytes)
        if self._digests is not None:
            chunk_bytes = self._digests.chunk_bytes
            self._chunks = _ChunkHasher(chunk_bytes, num_bytes // chunk_bytes)


class _ChunkHasher:
    """Hashes each chunk of what passes, from the chunk `index` on."""

    def __init__(self, chunk_bytes: int, index: int = 0) -> None:
        self._chunk_bytes = chunk_bytes
        self._index = index
        self._hash = hashlib.sha256()
        self._num_bytes = 0

    def update(self, content: bytes) -> Iterator[tuple[int, str]]:
        """Index and SHA-256 of every chunk that is full now."""
        rest = memoryview(content)
        while rest:
            piece = rest[: self._chunk_bytes - self._num_bytes]
            rest = rest[len(piece) :]
            self._hash.update(piece)
            self._num_bytes += len(piece)
            if self._num_bytes == self._chunk_bytes:
                yield self._index, self._hash.hexdigest()
                self._index += 1
                self._hash, self._num_bytes = hashlib.sha256(), 0


def _open_locked(path: Path) -> BinaryIO:
    """To append to; of this process alone until it is closed."""
    while True:
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError:
            file.close()
            raise AlreadyDownloading(
                f"another process is downloading {path.name.rpartition('.')[0]}"
            ) from None
        except FileNotFoundError:
            pass  # whoever had it has finished since it was opened
        file.close()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
