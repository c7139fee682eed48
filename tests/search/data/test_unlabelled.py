"""Rows without labels, for every task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.data.dataset import columns_of, formats, read_unlabelled
from search.data.documents import Documents
from search.data.images import Images
from search.data.texts import PlainTexts
from search.errors import InvalidInput
from search.shape import TASKS
from tests.search.data.files import write


@pytest.mark.parametrize(
    "task", ["text-classification", "token-classification", "sentence-embedding"]
)
def test_texts_count_once_and_their_labels_are_not_looked_at(tmp_path: Path, task: str) -> None:
    path = write(tmp_path, "body,label\none,\ntwo,x\none,y\n")
    found = read_unlabelled(path, task=task, columns={"text": "body"})
    assert found == PlainTexts(texts=("one", "two"))
    assert found.summary() == {"num_rows": 2, "num_labels": 0}


def test_pairs_are_pairs_without_labels_too(tmp_path: Path) -> None:
    path = write(tmp_path, "text,text_pair\na,b\na,c\na,b\n")
    found = read_unlabelled(path, task="pair-classification")
    assert found == PlainTexts(texts=("a", "a"), pairs=("b", "c"))


def test_running_text_and_images_are_read_as_those_with_labels_are(tmp_path: Path) -> None:
    text = write(tmp_path, "word " * 3000, "more.txt")
    assert isinstance(read_unlabelled(text, task="language-modelling"), Documents)
    pixels = np.zeros((3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "more.npz", images=pixels, labels=["a", "b", "c"])
    found = read_unlabelled(tmp_path / "more.npz", task="image-classification")
    assert isinstance(found, Images)
    assert (len(found), found.labels, found.label_names) == (3, (), ())
    assert found.summary()["num_rows"] == 3


@pytest.mark.parametrize(
    ("content", "name", "field", "match"),
    [
        ("text\n", "more.csv", "unlabelled", "has no row"),
        ("", "more.csv", "unlabelled", "is empty"),
        ("body\nx\n", "more.csv", "unlabelled.text", "column 'text' is missing"),
        ("text\n \n", "more.csv", "unlabelled.text", "line 2: the text is empty"),
        (
            "x",
            "more.txt",
            "unlabelled",
            "ends in .csv or .jsonl or .parquet, for text-classification",
        ),
    ],
)
def test_what_is_wrong_is_said_of_the_rows_without_labels(
    tmp_path: Path, content: str, name: str, field: str, match: str
) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        read_unlabelled(write(tmp_path, content, name))
    assert caught.value.field == field


def test_an_archive_without_images_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "more.npz", images=np.zeros((0, 8, 8), dtype=np.uint8))
    with pytest.raises(InvalidInput, match="has no row") as caught:
        read_unlabelled(tmp_path / "more.npz", task="image-classification")
    assert caught.value.field == "unlabelled"


def test_no_task_asks_for_labels() -> None:
    for task in TASKS:
        assert formats(task, is_labelled=False)
        assert "label" not in columns_of(task, {}, is_labelled=False)
    with pytest.raises(InvalidInput, match=r"it reads unlabelled\.text$") as caught:
        columns_of("token-classification", {"label": "tags"}, is_labelled=False)
    assert caught.value.field == "unlabelled.label"
