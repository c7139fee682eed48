"""The header of a safetensors file, read and checked without loading a tensor.

A file comes from a stranger, so every number of it is checked before anything relies on it: the
format's own rules (https://github.com/huggingface/safetensors) and a bound on the header's size.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from search.errors import InvalidInput

MAX_HEADER_BYTES = 8 * 1024**2
COMPARED_BYTES = 1024**2
MAX_DIMENSIONS = 8
DTYPE_BYTES: Mapping[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorInfo:
    """One tensor of a file; `begin` and `end` count bytes from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file by name.

    Raises:
        InvalidInput: the file is truncated, corrupted, or no safetensors file.
    """
    field = path.name
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise InvalidInput(field, "is too short to be a safetensors file")
        (header_bytes,) = struct.unpack("<Q", prefix)
        if header_bytes > MAX_HEADER_BYTES:
            raise InvalidInput(
                field,
                f"is not a safetensors file: its header would have {header_bytes} bytes, "
                f"at most {MAX_HEADER_BYTES} are allowed",
            )
        if 8 + header_bytes > file_bytes:
            raise InvalidInput(field, "is truncated: it ends within its header")
        header = _parse_json(field, file.read(header_bytes))
    tensors = [
        _tensor(field, name, entry) for name, entry in header.items() if name != "__metadata__"
    ]
    _check_layout(field, tensors, file_bytes - 8 - header_bytes)
    return {tensor.name: tensor for tensor in tensors}


def have_equal_bytes(first: Path, a: TensorInfo, second: Path, b: TensorInfo) -> bool:
    """Whether two tensors, `a` of one file and `b` of another or the same, hold the same numbers.

    They may differ where one file stores a matrix in another dtype: nothing is converted.
    """
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    with first.open("rb") as left, second.open("rb") as right:
        left.seek(_data_start(left) + a.begin)
        right.seek(_data_start(right) + b.begin)
        remaining = a.end - a.begin
        while remaining:
            size = min(remaining, COMPARED_BYTES)
            if left.read(size) != right.read(size):
                return False
            remaining -= size
    return True


def _data_start(file: BinaryIO) -> int:
    """Of a file whose header was checked."""
    (header_bytes,) = struct.unpack("<Q", file.read(8))
    return 8 + int(header_bytes)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Object hook for `json.loads`: two readers could each see another one of two equal keys."""
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key is given twice")
    return result


def _parse_json(field: str, data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data.decode("utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(field, f"has a corrupted header: {error}") from None
    if not isinstance(header, dict):
        raise InvalidInput(field, "has a corrupted header: it must be a JSON object")
    return header


def _tensor(field: str, name: str, entry: Any) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InvalidInput(
            field, f"tensor {name!r} must have exactly dtype, shape and data_offsets"
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise InvalidInput(
            field, f"tensor {name!r} has dtype {dtype!r}, known are {', '.join(DTYPE_BYTES)}"
        )
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise InvalidInput(field, f"tensor {name!r} has a shape that is no list of sizes")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise InvalidInput(field, f"tensor {name!r} has data_offsets that are no pair of numbers")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise InvalidInput(
            field,
            f"tensor {name!r} of shape {shape} and dtype {dtype} needs "
            f"{math.prod(shape) * DTYPE_BYTES[dtype]} bytes, its offsets hold {end - begin}",
        )
    return TensorInfo(name=name, dtype=dtype, shape=tuple(shape), begin=begin, end=end)


def _are_counts(values: Any) -> bool:
    # bool is an int in Python, but `true` is not a size
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**48 for v in values)


def _check_layout(field: str, tensors: list[TensorInfo], data_bytes: int) -> None:
    position = 0
    for tensor in sorted(tensors, key=lambda t: (t.begin, t.end)):
        if tensor.begin != position:
            kind = "overlaps the one before" if tensor.begin < position else "leaves a gap before"
            raise InvalidInput(field, f"tensor {tensor.name!r} {kind}: the file is corrupted")
        position = tensor.end
    if position > data_bytes:
        raise InvalidInput(
            field,
            f"is truncated: its tensors need {position} bytes, {data_bytes} are there",
        )
    if position < data_bytes:
        raise InvalidInput(field, f"has {data_bytes - position} bytes that belong to no tensor")
