"""Room on a local disk: looked for before it is used, and told apart from other errors."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.store.protocol import StoreFull

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def free_bytes(folder: Path) -> int:
    """On the disk of a folder that may not be there yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_room(folder: Path, needed_bytes: int, reserve_bytes: int) -> None:
    """Raises: StoreFull when less than the reserve would be left. The database needs that: a
    service that fills its disk to the last byte can not even write down that it did."""
    free = free_bytes(folder)
    if free - needed_bytes < reserve_bytes:
        raise StoreFull(
            f"the disk of {folder} is nearly full: {mib(free)} free, {mib(needed_bytes)} needed "
            f"and {mib(reserve_bytes)} kept in reserve"
        )


def is_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that a disk had no room."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StoreFull) or (isinstance(seen, OSError) and seen.errno in _FULL):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@contextmanager
def full_told(folder: Path) -> Iterator[None]:
    """A disk that fills up in the middle of a write is told as one that was full before."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StoreFull(f"the disk of {folder} is full: {error.strerror}") from error


def mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:,.0f} MiB"
