from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.data.dataset import Texts
from search.data.documents import Documents
from search.data.images import Images
from search.data.splits import Splits
from search.data.tagged import TaggedTexts
from search.data.texts import LabelledTexts, PlainTexts
from search.robustness.sample import MAX_TEXTS, Sample, changed, select, strings_of

PAIRS = LabelledTexts(
    texts=tuple(f"first {i}" for i in range(40)),
    pairs=tuple(f"second {i}" for i in range(40)),
    labels=tuple(i % 2 for i in range(40)),
    label_names=("a", "b"),
)
TAGGED = TaggedTexts(
    words=tuple((f"word{i}", "is") for i in range(40)),
    tags=tuple((i % 2, 1) for i in range(40)),
    label_names=("a", "b"),
    lines=tuple(range(1, 41)),
)
PLAIN = PlainTexts(texts=tuple(f"text {i}" for i in range(40)))
DOCUMENTS = Documents(texts=tuple(f"{i} line\n" * 40 for i in range(40)), num_documents=40)
SPLITS = Splits(train=tuple(range(20)), search=(20,), validation=(21,), test=tuple(range(22, 40)))
ALL: dict[str, Texts] = {
    "pairs": PAIRS,
    "tagged": TAGGED,
    "plain": PLAIN,
    "documents": DOCUMENTS,
}


def sample_of(texts: Texts) -> Sample:
    found = Sample.of(texts, SPLITS, 16)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["pairs", "tagged", "plain"])
def test_a_sample_is_of_the_test_split(name: str) -> None:
    assert sample_of(ALL[name]).texts == select(ALL[name], SPLITS.test)


def test_running_text_is_sampled_in_pieces_of_one_block() -> None:
    pieces = strings_of(sample_of(DOCUMENTS).texts)
    assert all(16 <= len(piece) <= 32 for piece in pieces)
    assert all(int(piece.split()[0]) in SPLITS.test for piece in pieces)


def test_images_have_no_texts() -> None:
    pixels = np.zeros((40, 1, 2, 2), dtype=np.uint8)
    images = Images(pixels=pixels, labels=PAIRS.labels, label_names=("a", "b"))
    assert Sample.of(images, SPLITS, 16) is None


@pytest.mark.parametrize("name", list(ALL))
def test_it_is_read_back_as_it_was_saved(name: str, tmp_path: Path) -> None:
    sample = sample_of(ALL[name])
    sample.save(tmp_path / "sample.json")
    again = Sample.load(tmp_path / "sample.json")
    assert again.texts == sample.texts
    words = [s.vocabulary and s.vocabulary.counts for s in (again, sample)]
    assert words[0] == words[1]
    assert bool(words[0]) == (name == "pairs"), "only texts with a label each have words to swap"


def test_the_vocabulary_is_of_the_training_split() -> None:
    vocabulary = sample_of(PAIRS).vocabulary
    assert vocabulary is not None
    assert vocabulary.counts == {"first": (10, 10), "second": (10, 10)}


def test_fewer_texts_are_spread_over_all() -> None:
    fewer = sample_of(PLAIN).spread(3)
    assert strings_of(fewer.texts) == ["text 22", "text 28", "text 34"]
    assert len(sample_of(PLAIN).spread(MAX_TEXTS).texts) == len(SPLITS.test)


def test_a_text_is_kept_no_longer_than_it_is_read() -> None:
    long = PlainTexts(texts=("x" * 10_000,) * 40)
    assert {len(text) for text in strings_of(sample_of(long).texts)} == {32 * 16}


def test_every_text_of_a_row_is_changed() -> None:
    pairs = changed(select(PAIRS, [3]), lambda row, text: f"{text} of {row}")
    assert strings_of(pairs) == ["first 3 of 0", "second 3 of 0"]
    tagged = changed(select(TAGGED, [3, 4]), lambda row, word: f"{word}{row}")
    assert strings_of(tagged) == ["word30", "is0", "word41", "is1"]
