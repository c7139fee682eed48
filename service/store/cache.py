"""A folder with copies of blobs from elsewhere, bounded, shared by the processes of a machine."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.store.digest import HashingWriter
from service.store.protocol import BlobDamaged
from service.store.space import check_room, full_told

Fetch = Callable[[HashingWriter], None]

ABANDONED_SECONDS = 24 * 3600.0


class BlobCache:
    """`<root>/ab/<sha256>`; a file's modification time is when it was last asked for.

    Whoever asks for a file, or puts one into its place, holds a lock shared; who removes files
    holds it exclusively. So a path that was handed out stays for `keep_seconds`.

    Args:
        limit_bytes: what is there in all, as far as files that are in use allow it.
        keep_seconds: how long a file is in use after it was asked for.
        reserve_bytes: what a download has to leave free on the disk.
    """

    def __init__(
        self, root: Path, *, limit_bytes: int, keep_seconds: float, reserve_bytes: int = 0
    ) -> None:
        self.root = root
        self._limit_bytes = limit_bytes
        self._keep_seconds = keep_seconds
        self._reserve_bytes = reserve_bytes

    def get(self, sha256: str, size_bytes: Callable[[], int], fetch: Fetch) -> Path:
        """A local copy; `size_bytes` and `fetch` are only called where there is none yet.

        Raises: BlobDamaged when what is fetched is something else.
        """
        if (known := self._find(sha256)) is not None:
            return known
        # Processes that want the same wait for one download.
        with self._lock(f"fetch-{sha256[:2]}", fcntl.LOCK_EX):
            if (known := self._find(sha256)) is not None:
                return known
            self._make_room(size_bytes())
            return self._download(sha256, fetch)

    def remove(self, sha256: str) -> None:
        with self._lock("files", fcntl.LOCK_EX):
            self._place(sha256).unlink(missing_ok=True)

    @contextmanager
    def temporary_file(self, expected_bytes: int = 0) -> Iterator[Path]:
        """Beside the cache, gone at the end unless it was moved away."""
        incoming = self.root / "incoming"
        check_room(incoming, expected_bytes, self._reserve_bytes)
        incoming.mkdir(parents=True, exist_ok=True)
        with full_told(incoming):
            descriptor, name = tempfile.mkstemp(dir=incoming)
            os.close(descriptor)
            try:
                yield Path(name)
            finally:
                Path(name).unlink(missing_ok=True)

    def _find(self, sha256: str) -> Path | None:
        place = self._place(sha256)
        with self._lock("files", fcntl.LOCK_SH):
            try:
                os.utime(place)
            except FileNotFoundError:
                return None
        return place

    def _download(self, sha256: str, fetch: Fetch) -> Path:
        place = self._place(sha256)
        place.parent.mkdir(exist_ok=True)
        with self.temporary_file() as temporary:
            with temporary.open("wb") as stream:
                writer = HashingWriter(stream)
                fetch(writer)
            if writer.sha256 != sha256:
                raise BlobDamaged(f"what was fetched as {sha256} is {writer.sha256}")
            temporary.chmod(0o444)
            with self._lock("files", fcntl.LOCK_SH):
                temporary.replace(place)
        return place

    def _make_room(self, needed_bytes: int) -> None:
        """Remove what was asked for longest ago, until the limit holds with so much more."""
        self._remove_abandoned()
        with self._lock("files", fcntl.LOCK_EX):
            files = [(path, path.stat()) for path in self.root.glob("??/*")]
            in_all = sum(stat.st_size for _, stat in files) + needed_bytes
            unused_since = time.time() - self._keep_seconds
            for path, stat in sorted(files, key=lambda file: file[1].st_mtime):
                if in_all <= self._limit_bytes or stat.st_mtime > unused_since:
                    break
                path.unlink()
                in_all -= stat.st_size
        check_room(self.root, needed_bytes, self._reserve_bytes)

    def _remove_abandoned(self) -> None:
        """Downloads of processes that were killed."""
        for path in (self.root / "incoming").glob("*"):
            try:
                if path.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                    path.unlink()
            except FileNotFoundError:  # another process was quicker
                continue

    def _place(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256

    @contextmanager
    def _lock(self, name: str, kind: int) -> Iterator[None]:
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        # Opened anew each time: threads of one process exclude each other as well.
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)
