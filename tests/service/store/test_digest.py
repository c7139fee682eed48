from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from service.store.digest import CHUNK_BYTES, HashingWriter, digest_of


@pytest.mark.parametrize(
    "size_bytes", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES]
)
@pytest.mark.parametrize("piece_bytes", [1_000_003, 3 * CHUNK_BYTES])
def test_chunks_are_hashed_as_if_cut_first(
    tmp_path: Path, size_bytes: int, piece_bytes: int
) -> None:
    content = (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]
    stream = io.BytesIO()
    writer = HashingWriter(stream)
    for start in range(0, size_bytes, piece_bytes):
        writer.write(content[start : start + piece_bytes])
    assert stream.getvalue() == content
    found = writer.digest
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert found.size_bytes == size_bytes
    assert found.chunks == tuple(
        hashlib.sha256(content[start : start + CHUNK_BYTES]).hexdigest()
        for start in range(0, size_bytes, CHUNK_BYTES)
    )
    path = tmp_path / "file"
    path.write_bytes(content)
    assert digest_of(path) == found
