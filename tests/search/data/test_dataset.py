from __future__ import annotations

from pathlib import Path

import pytest

from search.data import dataset as module
from search.data.dataset import columns_of, formats, read_dataset
from search.errors import InvalidInput
from search.shape import TASKS
from tests.search.data.files import write

CSV = "review,stars\n" + "".join(f"text {i},{i % 2}\n" for i in range(40))


def test_columns_can_be_named_and_the_format_too(tmp_path: Path) -> None:
    path = write(tmp_path, CSV, "0123abcd")
    columns = {"text": "review", "label": "stars"}
    assert len(read_dataset(path, columns=columns, name="reviews.csv")) == 40


@pytest.mark.parametrize(
    ("task", "name", "known"),
    [
        ("text-classification", "data.npz", ".csv or .jsonl or .parquet"),
        ("token-classification", "data.csv", "ends in .jsonl or .parquet"),
        ("image-classification", "data.csv", "ends in .npz or .jsonl or .parquet"),
        ("language-modelling", "data.npz", ".txt or .csv or .jsonl"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, task: str, name: str, known: str) -> None:
    with pytest.raises(InvalidInput, match=known) as caught:
        read_dataset(write(tmp_path, b"PAR1", name), task=task)
    assert caught.value.field == "data"


def test_a_file_that_is_too_large_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 10)
    with pytest.raises(InvalidInput, match="more than 10 bytes"):
        read_dataset(write(tmp_path, b"\xff" * 11))


def test_each_task_has_columns_of_its_own() -> None:
    assert columns_of("text-classification", {"text": "review", "label": None}) == {
        "text": "review",
        "label": "label",
    }
    assert columns_of("token-classification", {}) == {"text": "tokens", "label": "tags"}
    assert all(formats(task) for task in TASKS)


@pytest.mark.parametrize(
    ("task", "given", "field", "match"),
    [
        (
            "text-classification",
            {"text_pair": "b"},
            "data.text_pair",
            "it reads data.text, data.l",
        ),
        ("image-classification", {"text": "a"}, "data.text", "it reads data.image, data.label"),
        ("language-modelling", {"label": "a"}, "data.label", "does not read it"),
        ("translation", {}, "task", "'translation' is not one of text-classification"),
    ],
)
def test_a_column_that_a_task_has_no_use_for_is_refused(
    task: str, given: dict[str, str | None], field: str, match: str
) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        columns_of(task, given)
    assert caught.value.field == field


def test_one_column_is_not_read_as_two(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"another column than data\.text") as caught:
        read_dataset(write(tmp_path, CSV), columns={"text": "review", "label": "review"})
    assert caught.value.field == "data.label"
