from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.data.dataset import read_dataset
from search.data.documents import Documents, stretches
from search.errors import InvalidInput
from tests.search.data.files import write


def read(path: Path) -> Documents:
    dataset = read_dataset(path, task="language-modelling")
    assert isinstance(dataset, Documents)
    return dataset


def rows(texts: list[str]) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def test_a_text_file_is_cut_into_stretches_that_make_it_up(tmp_path: Path) -> None:
    text = "".join(f"line {i} of a book\n" for i in range(3000))
    dataset = read(write(tmp_path, text, "book.txt"))
    assert "".join(dataset.texts) == text
    assert dataset.num_documents == 1
    assert 40 <= len(dataset) <= 210
    assert all(stretch.endswith("\n") for stretch in dataset.texts)


def test_no_stretch_is_in_two_splits_and_each_has_its_share(tmp_path: Path) -> None:
    text = "".join(f"line {i} of a book\n" for i in range(3000))
    dataset = read(write(tmp_path, text, "book.txt"))
    splits = dataset.split(0)
    lines = [
        {line for place in part for line in dataset.texts[place].splitlines()}
        for part in (splits.train, splits.search, splits.validation, splits.test)
    ]
    assert sum(map(len, lines)) == len(set().union(*lines)) == 3000
    assert [len(part) / 3000 for part in lines] == pytest.approx([0.7, 0.1, 0.05, 0.15], abs=0.03)


def test_documents_stay_whole_and_count_once(tmp_path: Path) -> None:
    texts = [f"document {i}: " + "word " * 40 for i in range(60)]
    dataset = read(write(tmp_path, rows([*texts, *texts[:10]]), "data.jsonl"))
    assert dataset.texts == tuple(texts)
    assert dataset.summary() == {
        "num_rows": 60,
        "num_labels": 0,
        "num_chars": sum(map(len, texts)),
    }


def test_a_document_that_is_most_of_the_text_is_cut(tmp_path: Path) -> None:
    texts = ["short " * 20, "long\n" * 10_000]
    dataset = read(write(tmp_path, rows(texts), "data.jsonl"))
    assert len(dataset) > 40
    assert "".join(dataset.texts) == "".join(texts)


def test_a_line_longer_than_a_stretch_is_cut_anyhow() -> None:
    assert list(stretches("ab\ncdefghij\nk", 4)) == ["ab\n", "cdef", "ghij", "\nk"]


@pytest.mark.parametrize(
    ("name", "content", "field", "match"),
    [
        ("a.txt", "", "data", "is empty"),
        ("a.txt", " \n" * 9000, "data", "is empty"),
        ("a.txt", "too short", "data", "has 9 characters of text; at least 10000"),
        ("a.txt", b"\xff" * 20_000, "data", "not UTF-8: line 1, byte 1"),
        ("a.jsonl", rows(["x" * 20_000, " "]), "data.text", "line 2: the text is empty"),
        ("a.jsonl", '{"txt": "x"}', "data.text", "column 'text' is missing in line 1"),
        ("a.csv", "text\n" + "x\n" * 20_000, "data", "has 1 characters of text"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(
    tmp_path: Path, name: str, content: str | bytes, field: str, match: str
) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        read(write(tmp_path, content, name))
    assert caught.value.field == field
