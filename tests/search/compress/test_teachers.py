"""Folders as teachers: what Snugnet wrote, and what others did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from search.compress.teacher_facts import check_pieces
from search.compress.teachers import read_teacher
from search.errors import InvalidInput
from search.export.folder import write_model
from search.families.config import CONFIG_FILE
from search.model.checkpoint import TOKENIZER_FILE
from search.model.extract import extract
from search.training.batches import TokenRows
from search.training.evaluate import predict
from tests.search import small
from tests.search.compress.vocabularies import TRAIN, rows_of, size_of, spec_of
from tests.search.families import SHAPES, network_of
from tests.search.model import folders

SPEC = spec_of("wordpiece")
SHAPE = replace(SHAPES["bert"], vocab_size=size_of(SPEC), num_labels=2)
ROWS: TokenRows = rows_of(SPEC, TRAIN)


def written(folder: Path, *, labels: tuple[str, ...] = ("bad", "good")) -> Path:
    model = extract(network_of(SHAPE), small.MIXED)
    write_model(model, folder, labels)
    (folder / TOKENIZER_FILE).write_text(json.dumps(SPEC))
    return folder


def test_a_folder_that_a_job_wrote_teaches_with_its_labels_and_words(tmp_path: Path) -> None:
    found = read_teacher(written(tmp_path / "model"), SHAPE)
    assert found.label_names == ("bad", "good")
    assert found.has_answers
    assert found.model.sizes.num_layers == 2
    expected = predict(extract(network_of(SHAPE), small.MIXED), ROWS)
    assert predict(found.model, ROWS).allclose(expected, atol=1e-5)
    found.check("given", SHAPE, ROWS, SPEC)
    found.check_answers("given", SHAPE, ("bad", "good"))
    with pytest.raises(InvalidInput, match="'good', 'bad' in this order, has 'bad', 'good'"):
        found.check_answers("given", SHAPE, ("good", "bad"))


def test_a_tokenizer_that_the_library_cannot_read_makes_no_teacher(tmp_path: Path) -> None:
    folder = written(tmp_path / "model")
    broken = {**SPEC, "normalizer": {"type": "Melt"}}
    (folder / TOKENIZER_FILE).write_text(json.dumps(broken))
    found = read_teacher(folder, SHAPE)
    with pytest.raises(InvalidInput, match=r"tokenizer\.json cannot be read") as caught:
        found.check("given", SHAPE, ROWS, SPEC)
    assert caught.value.field == "teachers.given"


def test_pieces_are_compared_by_their_numbers_in_lists_too() -> None:
    mine = {"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}
    check_pieces("teachers.given", mine, mine)
    for vocab in ([["b", -1.0], ["a", -2.0]], [["a", -1.0], 7], [["a", -1.0], []]):
        with pytest.raises(InvalidInput, match="reads the same ids"):
            check_pieces("teachers.given", {"model": {"vocab": vocab}}, mine)


def test_labels_that_have_no_names_of_their_own_are_not_compared(tmp_path: Path) -> None:
    found = read_teacher(written(tmp_path / "model", labels=()), SHAPE)
    assert found.label_names == ()
    found.check_answers("given", SHAPE, ("bad", "good"))


def test_a_model_as_it_was_pretrained_has_no_answers(tmp_path: Path) -> None:
    found = read_teacher(folders.write_model(tmp_path / "model"), SHAPE)
    assert not found.has_answers
    assert found.width == 8


def test_a_token_classifier_of_others_teaches_with_its_own_head(tmp_path: Path) -> None:
    shape = replace(SHAPE, task="token-classification")
    model = network_of(shape)
    write_model(model, tmp_path, ("noun", "verb"))
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps(SPEC))
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    del config["snugnet"]
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    found = read_teacher(tmp_path, shape)
    assert found.has_answers
    assert found.label_names == ("noun", "verb")
    for mine, theirs in zip(found.model.parameters(), model.parameters(), strict=True):
        assert mine.equal(theirs)
