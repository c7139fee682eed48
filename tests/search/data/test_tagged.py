from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from search.data.dataset import read_dataset
from search.data.tagged import TaggedTexts
from search.errors import InvalidInput
from tests.search.data.files import write


def line(words: Any, tags: Any) -> str:
    return json.dumps({"tokens": words, "tags": tags}) + "\n"


GOOD = "".join(line(["Ada", "wrote", str(i)], ["PER", "O", i % 2]) for i in range(40))


def read(path: Path) -> TaggedTexts:
    dataset = read_dataset(path, task="token-classification")
    assert isinstance(dataset, TaggedTexts)
    return dataset


def test_words_and_tags_stand_in_the_files_order(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, "\n" + GOOD, "data.jsonl"))
    assert len(dataset) == 40
    assert dataset.words[3] == ("Ada", "wrote", "3")
    assert dataset.label_names == ("0", "1", "O", "PER")
    assert dataset.tags[3] == (3, 2, 1)
    assert dataset.lines[:2] == (2, 3)
    assert dataset.summary()["words_by_label"] == {"0": 20, "1": 20, "O": 40, "PER": 40}


@pytest.mark.parametrize(
    ("last", "field", "match"),
    [
        (line(["a", "b"], ["O"]), "data.label", "line 41 has 2 tokens, but 1 tags"),
        (line([], []), "data.text", "line 41: tokens is empty"),
        (line(["a", " "], ["O", "O"]), "data.text", "line 41: word 2 is empty"),
        (line("a b", ["O", "O"]), "data.text", "line 41: tokens must be a list of strings"),
        (line(["a", 1], ["O", "O"]), "data.text", "line 41: tokens must be a list of strings"),
        (line(["a"], "O"), "data.label", "line 41: tags must be a list of labels"),
        (line(["a"], [0.5]), "data.label", "line 41: a label is a string or a whole number"),
        (line(["a"], [""]), "data.label", "line 41: the label is empty"),
        (line(["\ud800"], ["O"]), "data", "line 41 holds half of a surrogate pair"),
        ('{"tokens": ["a"]}\n', "data.label", "column 'tags' is missing in line 41"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, last: str, field: str, match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        read(write(tmp_path, GOOD + last, "data.jsonl"))
    assert caught.value.field == field


def test_one_tag_only_and_too_few_sentences_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="every word has the label 'O'"):
        read(write(tmp_path, line(["a"], ["O"]) * 40, "data.jsonl"))
    with pytest.raises(InvalidInput, match="has 19 rows; the splits need at least 20"):
        read(write(tmp_path, line(["a", "b"], ["O", "P"]) * 19, "data.jsonl"))
