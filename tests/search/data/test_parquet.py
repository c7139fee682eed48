from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from search.data import parquet as module
from search.data.dataset import read_dataset, read_unlabelled
from search.errors import InvalidInput
from tests.search.data.encoded import write_parquet
from tests.search.data.files import write

TEXTS = [f"text {i}" for i in range(600)]
LABELS = [i % 2 for i in range(600)]


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (TEXTS, LABELS),
        (pa.array(TEXTS, pa.large_string()), pa.array(LABELS, pa.int8())),
        (pa.array(TEXTS).dictionary_encode(), [str(label) for label in LABELS]),
    ],
)
def test_parquet_and_jsonl_give_the_same_dataset(tmp_path: Path, texts: Any, labels: Any) -> None:
    path = write_parquet(tmp_path / "d.parquet", text=texts, label=labels, other=[1.5] * 600)
    rows = zip(TEXTS, LABELS, strict=True)
    lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    assert read_dataset(path) == read_dataset(write(tmp_path, lines, "d.jsonl"))


def test_every_task_that_reads_tables_reads_parquet(tmp_path: Path) -> None:
    words = [["a", "b"], ["c"]] * 20
    tags = [["x", "y"], ["x"]] * 20
    path = write_parquet(tmp_path / "words.parquet", tokens=words, tags=tags)
    assert len(read_dataset(path, task="token-classification")) == 40
    path = write_parquet(tmp_path / "texts.parquet", text=[f"{t} word" * 40 for t in TEXTS])
    assert len(read_dataset(path, task="sentence-embedding")) == 600
    assert read_dataset(path, task="language-modelling").summary()["num_rows"] == 600
    assert len(read_unlabelled(path, task="token-classification")) == 600


@pytest.mark.parametrize(
    ("columns", "field", "match"),
    [
        ({"text": TEXTS}, "data.label", "'label' is missing; the file has 'text'"),
        ({"text": TEXTS, "label": [0.5] * 600}, "data.label", "is of the type double"),
        ({"text": [{"a": 1}] * 600, "label": LABELS}, "data.text", "is of the type struct"),
        ({"text": [*TEXTS[1:], None], "label": LABELS}, "data.text", "line 600: the text must be"),
        ({"text": [b"\xff"] * 600, "label": LABELS}, "data.text", "line 1: the text must be"),
        ({"text": [], "label": []}, "data.(text|label)|data", "type null|has no row"),
    ],
)
def test_wrong_columns_are_refused(
    tmp_path: Path, columns: dict[str, Any], field: str, match: str
) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        read_dataset(write_parquet(tmp_path / "d.parquet", **columns))
    assert re.fullmatch(field, caught.value.field)


def test_a_column_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["text", "text", "label"])
    pq.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(InvalidInput, match="'text' is given twice"):
        read_dataset(tmp_path / "d.parquet")


def test_an_extension_type_is_refused_known_or_not(tmp_path: Path) -> None:
    known = pa.array(['{"a": 1}'] * 40, pa.json_())
    path = write_parquet(tmp_path / "known.parquet", text=known, label=LABELS[:40])
    with pytest.raises(InvalidInput, match=r"column 'text' is of the type") as caught:
        read_dataset(path)
    assert caught.value.field == "data.text"
    named = pa.field("text", pa.string(), metadata={"ARROW:extension:name": "somebody.s"})
    schema = pa.schema([named, pa.field("label", pa.int64())])
    path = write_parquet(tmp_path / "unknown.parquet", schema, text=TEXTS[:40], label=LABELS[:40])
    with pytest.raises(InvalidInput, match=r"column 'text' is of the type"):
        read_dataset(path)


def test_more_than_may_be_read_is_refused_by_the_footer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path / "d.parquet", text=TEXTS, label=LABELS)
    for limit, value, match in (
        ("MAX_ROWS", 599, "has 600 rows; at most 599"),
        ("MAX_COLUMNS", 1, "has 2 columns; at most 1"),
        ("MAX_DECODED_BYTES", 100, r"has \d+ bytes when it is unpacked"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, value)
            patch.setattr(module, "BATCH_ROWS", 0)  # nothing is read
            with pytest.raises(InvalidInput, match=match):
                read_dataset(path)


def test_what_the_footer_does_not_show_stops_where_it_passes_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One long text, named by every row: 40 kB that unpack to 60 MB.
    path = write_parquet(tmp_path / "bomb.parquet", text=["x" * 100_000] * 600, label=LABELS)
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(module, "MAX_DECODED_BYTES", 40_000_000)
    with pytest.raises(InvalidInput, match="unpacks to more than 40000000 bytes"):
        read_dataset(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"PK\x03\x04"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput, match="is not a Parquet file") as caught:
        read_dataset(write(tmp_path, content, "d.parquet"))
    assert caught.value.field == "data"


def test_a_footer_whose_columns_are_damaged_does_not_end_the_process(tmp_path: Path) -> None:
    """The library did, when it was asked for the sizes of a column."""
    path = write_parquet(tmp_path / "d.parquet", text=TEXTS[:60], label=LABELS[:60])
    whole = path.read_bytes()
    footer_bytes = int.from_bytes(whole[-8:-4], "little")
    for at in range(len(whole) - 8 - footer_bytes, len(whole) - 8, 7):
        path.write_bytes(whole[:at] + b"\xff\x19\x15" + whole[at + 3 :])
        with suppress(InvalidInput):
            read_dataset(path)
