from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.data.dataset import read_dataset
from search.data.texts import LabelledTexts, PlainTexts
from search.errors import InvalidInput
from tests.search.data.files import write


def read(path: Path) -> LabelledTexts:
    dataset = read_dataset(path)
    assert isinstance(dataset, LabelledTexts)
    return dataset


def csv_text(num_rows: int = 40, header: str = "text,label") -> str:
    rows = [f"text {i},{'good' if i % 2 else 'bad'}" for i in range(num_rows)]
    return "\n".join([header, *rows]) + "\n"


def refused(path: Path, field: str, match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        read_dataset(path)
    assert caught.value.field == field


def test_csv_and_jsonl_give_the_same_dataset(tmp_path: Path) -> None:
    from_csv = read(write(tmp_path, csv_text()))
    lines = [
        json.dumps({"label": from_csv.label_names[label], "text": text, "more": 1})
        for text, label in zip(from_csv.texts, from_csv.labels, strict=True)
    ]
    assert read(write(tmp_path, "\n".join(lines), "data.jsonl")) == from_csv
    assert from_csv.label_names == ("bad", "good")
    assert from_csv.summary() == {
        "num_rows": 40,
        "num_labels": 2,
        "rows_by_label": {"bad": 20, "good": 20},
    }


def test_quoted_line_breaks_a_byte_order_mark_and_other_columns_are_fine(tmp_path: Path) -> None:
    rows = "".join(f'{i % 2},"a ""b""\nc, {i}",x\n' for i in range(40))
    path = write(tmp_path, "\ufefflabel,text,other\r\n" + rows)
    dataset = read(path)
    assert dataset.texts[3] == 'a "b"\nc, 3'
    assert dataset.labels[:2] == (0, 1)


def test_numbers_sort_by_value_and_jsonl_labels_may_be_numbers_or_booleans(tmp_path: Path) -> None:
    numbers = [json.dumps({"text": "x", "label": i % 11}) for i in range(220)]
    dataset = read(write(tmp_path, "\n".join(numbers), "n.jsonl"))
    assert dataset.label_names[-2:] == ("9", "10")
    booleans = [json.dumps({"text": "x", "label": i % 2 == 0}) for i in range(40)]
    dataset = read(write(tmp_path, "\n".join(booleans), "b.jsonl"))
    assert dataset.label_names == ("false", "true")


@pytest.mark.parametrize(
    ("content", "field", "match"),
    [
        ("", "data", "is empty"),
        ("text,label\n", "data", "is empty: it has no row"),
        (csv_text(header="text,lable"), "data.label", "'label' is missing.*'text', 'lable'"),
        (csv_text(header="txt,label"), "data.text", "'text' is missing"),
        (csv_text(header="text,label").replace("text,", "text,label,", 1), "data.label", "twice"),
        (csv_text(38), "data", "38 rows; the splits need at least 40 for 2 classes"),
        (csv_text().replace("good", "bad"), "data.label", "every row has the label 'bad'"),
        (csv_text() + "a,rare\n" * 25 + "b,few\n", "data", "need at least 80 for 4 classes"),
        (csv_text(80) + "b,few\n", "data.label", "class 'few' has 1 rows; .* at least 20"),
        (csv_text() + " ,good\n", "data.text", "line 42: the text is empty"),
        (csv_text() + "x,\n", "data.label", "line 42: the label is empty"),
        (csv_text() + "x\n", "data", "line 42 has 1 columns, the header 2"),
        (csv_text() + '"x,good\n', "data", "not valid CSV"),
        (csv_text().encode() + b"\xff\xfe,good\n", "data", "not UTF-8: line 42, byte 1"),
        (csv_text().encode("utf-16"), "data", "not UTF-8: line 1"),
        (",".join("c" * 20_000), "data", "has 20000 columns; at most 10000 are read"),
        ('"' + "x" * (32 * 1024**2), "data", "line 1 has more than 33554432 bytes"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_place(
    tmp_path: Path, content: str | bytes, field: str, match: str
) -> None:
    refused(write(tmp_path, content), field, match)


@pytest.mark.parametrize(
    ("line", "field", "match"),
    [
        ("{", "data", "line 2 is not valid JSON"),
        ("[" * 100_000, "data", "line 2 is not valid JSON"),
        ("[1]", "data", "line 2 must be a JSON object"),
        ('{"text": "x"}', "data.label", "'label' is missing in line 2"),
        ('{"label": "x"}', "data.text", "'text' is missing in line 2"),
        ('{"text": 5, "label": "x"}', "data.text", "line 2: the text must be a string"),
        ('{"text": "x", "label": 0.5}', "data.label", "line 2: a label is a string or a whole"),
        ('{"text": "x", "label": null}', "data.label", "line 2"),
        ('{"text": "\\ud800", "label": "x"}', "data", "line 2 holds half of a surrogate pair"),
    ],
)
def test_a_wrong_line_of_jsonl_is_refused(
    tmp_path: Path, line: str, field: str, match: str
) -> None:
    good = '{"text": "x", "label": "y"}\n'
    refused(write(tmp_path, good + line + "\n", "data.jsonl"), field, match)


def test_pairs_have_a_second_text(tmp_path: Path) -> None:
    rows = "".join(f"premise {i},hypothesis {i},{'yes' if i % 2 else 'no'}\n" for i in range(40))
    path = write(tmp_path, "text,text_pair,label\n" + rows)
    dataset = read_dataset(path, task="pair-classification")
    assert isinstance(dataset, LabelledTexts)
    assert dataset.pairs is not None
    assert (dataset.texts[7], dataset.pairs[7]) == ("premise 7", "hypothesis 7")
    path.write_text(path.read_text() + "premise, ,yes\n")
    with pytest.raises(InvalidInput, match="line 42: the text is empty") as caught:
        read_dataset(path, task="pair-classification")
    assert caught.value.field == "data.text_pair"


def test_texts_without_labels_count_once_each(tmp_path: Path) -> None:
    path = write(tmp_path, "text\n" + "".join(f"text {i % 25}\n" for i in range(60)))
    dataset = read_dataset(path, task="sentence-embedding")
    assert isinstance(dataset, PlainTexts)
    assert dataset.texts == tuple(f"text {i}" for i in range(25))
    assert dataset.summary() == {"num_rows": 25, "num_labels": 0}
    splits = dataset.split(0)
    assert sorted(sum((splits.train, splits.search, splits.validation, splits.test), ())) == list(
        range(25)
    )
    write(tmp_path, "text\n" + "".join(f"text {i % 19}\n" for i in range(60)))
    with pytest.raises(InvalidInput, match="19 different texts; the splits need at least 20"):
        read_dataset(path, task="sentence-embedding")
