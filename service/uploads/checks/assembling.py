"""Puts the chunks of files together, and holds each file to the hash that was declared of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from search.errors import InvalidInput
from service.database.models import UploadChunk, UploadFile
from service.store.digest import Digest, HashingWriter
from service.store.protocol import ArtifactStore


def assemble(
    store: ArtifactStore,
    file: UploadFile,
    chunks: Sequence[UploadChunk],
    scratch: Path,
    between: Callable[[], None],
) -> Digest:
    """Store the file, which its upload names.

    Args:
        chunks: all of them, in order.
        between: called after each one.

    Raises:
        InvalidInput: together they are not the file that was declared.
    """
    # Read even where the store has the file already: it may be another tenant's.
    whole = scratch / "whole"
    with whole.open("wb") as target:
        writer = HashingWriter(target)
        for chunk in chunks:
            for piece in store.open_range(chunk.sha256, 0, chunk.size_bytes):
                writer.write(piece)
            between()
    if writer.sha256 != file.sha256:
        raise InvalidInput(file.name, "arrived with another SHA-256 than declared")
    store.put(whole, file.sha256)
    whole.unlink()
    return writer.digest
