from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import InvalidInput
from search.model import tensorfile
from search.model.tensorfile import DTYPE_BYTES, MAX_HEADER_BYTES, have_equal_bytes, read_header
from tests.search.model.folders import header_of, write_tensors

SHAPES = {"a": [2, 3], "b": [4], "scalar": []}


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def refused(path: Path, match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        read_header(path)
    assert caught.value.field == path.name


def test_a_whole_file_gives_its_tensors(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, **header_of(SHAPES)}
    tensors = read_header(write_tensors(tmp_path / "m.safetensors", header))
    assert {name: list(t.shape) for name, t in tensors.items()} == SHAPES
    assert tensors["b"].begin == 24
    assert tensors["b"].end == 40


def test_tensors_are_compared_by_every_byte_and_by_their_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorfile, "COMPARED_BYTES", 10)  # several reads, the last one short
    first = write_tensors(tmp_path / "first.safetensors", header_of({"a": [2, 3]}))
    second = write_tensors(tmp_path / "second.safetensors", header_of({"b": [1], "c": [2, 3]}))
    ours, theirs = read_header(first)["a"], read_header(second)["c"]
    assert have_equal_bytes(first, ours, second, theirs)
    assert not have_equal_bytes(first, ours, second, replace(theirs, dtype="I32"))
    content = bytearray(second.read_bytes())
    content[-1] = 1
    second.write_bytes(content)
    assert not have_equal_bytes(first, ours, second, theirs)


def test_the_library_reads_the_same_header(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    path = write_tensors(tmp_path / "m.safetensors", header_of(SHAPES))
    with safetensors.safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == set(read_header(path))


@pytest.mark.parametrize(
    ("header", "num_bytes", "match"),
    [
        ({"a": entry()}, 7, "truncated"),
        ({"a": entry()}, 9, "belong to no tensor"),
        ({"a": entry(), "b": entry(offsets=[4, 12])}, 12, "overlaps"),
        ({"a": entry(), "b": entry(offsets=[12, 20])}, 20, "gap"),
        ({"a": entry(offsets=[4, 12])}, 12, "gap"),
        ({"a": entry(dtype="X32")}, 8, "dtype 'X32'"),
        ({"a": entry(dtype=["F32"])}, 8, "dtype"),
        ({"a": entry(shape=[3])}, 8, "needs 12 bytes"),
        ({"a": entry(shape=[-2])}, 8, "no list of sizes"),
        ({"a": entry(shape=[True])}, 4, "no list of sizes"),
        ({"a": entry(shape=[2**40, 2**40])}, 8, "needs"),
        ({"a": entry(offsets=[8, 0])}, 8, "its offsets hold -8"),
        ({"a": entry(offsets=[0])}, 8, "no pair"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "exactly dtype, shape and data_offsets"),
        ({"a": 1}, 8, "exactly"),
        (b"[]", 0, "must be a JSON object"),
        (b'{"a"', 0, "corrupted header"),
        (b"\xff{}", 0, "corrupted header"),
        (b"[" * 100_000, 0, "corrupted header"),
        (b'{"a":1,"a":1}', 0, "a key is given twice"),
    ],
)
def test_a_wrong_header_is_refused(
    tmp_path: Path, header: dict[str, Any] | bytes, num_bytes: int, match: str
) -> None:
    refused(write_tensors(tmp_path / "m.safetensors", header, num_bytes), match)


def test_a_header_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", MAX_HEADER_BYTES + 1))
    refused(path, "at most")


def test_a_file_that_ends_in_its_header_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", 100) + b"{}")
    refused(path, "ends within its header")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04\x95" + b"x" * 50])
def test_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    refused(path, re.compile("too short|not a safetensors|truncated").pattern)


@given(data=st.binary(max_size=300), at=st.integers(0, 200))
@settings(max_examples=150, deadline=None)
def test_damage_is_refused_or_harmless_but_never_another_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int
) -> None:
    raw = json.dumps(header_of(SHAPES)).encode()
    whole = bytearray(struct.pack("<Q", len(raw)) + raw + bytes(44))
    whole[at : at + len(data)] = data
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(bytes(whole))
    try:
        tensors = read_header(path)
    except InvalidInput:
        return
    assert sum(t.end - t.begin for t in tensors.values()) <= len(whole)


NUMBERS = st.one_of(st.integers(-1, 30), st.sampled_from([2**31, 2**48, 2**63, 2**64]))
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "I8", "F64", "F33", "f32", ""]),
        "shape": st.lists(NUMBERS, max_size=3),
        "data_offsets": st.lists(NUMBERS, min_size=1, max_size=3),
    }
)
ORDERLY = st.lists(
    st.tuples(st.sampled_from(["F32", "F16", "I8"]), st.lists(st.integers(0, 4), max_size=3)),
    max_size=4,
)


def laid_out(tensors: list[tuple[str, list[int]]]) -> tuple[dict[str, Any], int]:
    """A header that is right, and the bytes that follow it."""
    header, position = {}, 0
    for place, (dtype, shape) in enumerate(tensors):
        end = position + math.prod(shape) * DTYPE_BYTES[dtype]
        header[f"t{place}"] = entry(dtype, shape, [position, end])
        position = end
    return header, position


@given(tensors=ORDERLY, lies=st.dictionaries(st.sampled_from(["t0", "t1", "x"]), ENTRIES),
       missing=st.integers(-2, 2))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_whatever_is_taken_the_library_reads_as_the_same_tensors(
    tmp_path_factory: pytest.TempPathFactory,
    tensors: list[tuple[str, list[int]]],
    lies: dict[str, Any],
    missing: int,
) -> None:
    safetensors = pytest.importorskip("safetensors")
    header, num_bytes = laid_out(tensors)
    path = tmp_path_factory.getbasetemp() / "lying.safetensors"
    write_tensors(path, {**header, **lies}, max(0, num_bytes + missing))
    try:
        found = read_header(path)
    except InvalidInput:
        assert lies or missing, "a header that is right is taken"
        return
    with safetensors.safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118  (the library's handle is no mapping)
            assert tuple(file.get_slice(name).get_shape()) == found[name].shape
        assert set(file.keys()) == set(found)
