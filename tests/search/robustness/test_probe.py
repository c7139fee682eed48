from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from search.compress.pieces import kept_ids, trimmed_tokenizer
from search.data.dataset import Texts
from search.data.documents import Documents
from search.data.tagged import TaggedTexts
from search.data.texts import LabelledTexts, PlainTexts
from search.model.transformer import Batch
from search.robustness.probe import ImageProbe, Probe, TextProbe
from search.training.batches import TokenRows
from search.training.image_rows import ImageRows
from tests.search.families import SHAPES
from tests.search.robustness.probes import BERT, LABELLED, TEXTS, probe

MakeProbe = Callable[[Path], Probe]
TAGGED = TaggedTexts(
    words=tuple(tuple(text.split()) for text in TEXTS),
    tags=tuple((0,) * len(text.split()) for text in TEXTS),
    label_names=("a", "b"),
    lines=(1, 2, 3, 4),
)


def pixels() -> ImageRows:
    images = torch.randint(60, 200, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    half = torch.tensor([0.5])
    return ImageRows(images.byte(), torch.arange(4) % 3, half, half / 2, 5)


def of_texts(task: str, texts: Texts) -> MakeProbe:
    def make(folder: Path) -> Probe:
        return probe(folder, texts, replace(BERT, task=task), teacher=counts)

    return make


def counts(batch: Batch) -> torch.Tensor:
    """A vector that tells the tokens of a text."""
    return torch.stack([torch.bincount(row, minlength=64).float() for row in batch.inputs])


def of_images(_: Path) -> Probe:
    return ImageProbe(shape=SHAPES["vit"], rows=pixels())


def of_documents(folder: Path) -> Probe:
    documents = Documents(texts=("the cat sat on the mat, " * 4, "the mat sat"), num_documents=2)
    return probe(folder, documents, SHAPES["gpt2"])


PROBES: dict[str, MakeProbe] = {
    "texts": of_texts("text-classification", LABELLED),
    "pairs": of_texts("pair-classification", replace(LABELLED, pairs=TEXTS[::-1])),
    "tags": of_texts("token-classification", TAGGED),
    "vectors": of_texts("sentence-embedding", PlainTexts(texts=TEXTS)),
    "documents": of_documents,
    "images": of_images,
}


def equal(one: object, other: object) -> bool:
    assert isinstance(one, TokenRows | ImageRows)
    names = ("pixels",) if isinstance(one, ImageRows) else ("tokens", "offsets")
    return all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in (*names, "labels")
    )


@pytest.mark.parametrize("name", list(PROBES))
def test_no_noise_changes_nothing_and_noise_is_fixed_by_its_seed(
    name: str, tmp_path: Path
) -> None:
    asked = PROBES[name](tmp_path)
    assert equal(asked.noised(0.0, 0), asked.rows)
    assert not equal(asked.noised(0.5, 0), asked.rows)
    assert equal(asked.noised(0.5, 0), asked.noised(0.5, 0))
    assert not equal(asked.noised(0.5, 1), asked.noised(0.5, 0))


@pytest.mark.parametrize("name", ["texts", "pairs", "vectors", "images"])
def test_right_answers_stay_those_of_the_clean_rows(name: str, tmp_path: Path) -> None:
    asked = PROBES[name](tmp_path)
    places = list(range(len(asked.rows)))
    labels = asked.noised(1.0, 0).labels_of(places)
    assert torch.equal(labels, asked.rows.labels_of(places))


def test_a_text_without_labels_is_asked_for_the_teachers_vector(tmp_path: Path) -> None:
    asked = PROBES["vectors"](tmp_path)
    assert torch.equal(asked.rows.labels_of([2]), counts(asked.rows.batch([2])))


def test_every_word_keeps_its_tag(tmp_path: Path) -> None:
    asked = PROBES["tags"](tmp_path)
    places = list(range(len(asked.rows)))
    noised = asked.noised(1.0, 0).labels_of(places)
    assert (noised == 0).sum() == (asked.rows.labels_of(places) == 0).sum() == 17


def test_a_sentence_that_has_become_too_long_is_cut(tmp_path: Path) -> None:
    words = ("newton",) * 7  # new, ##ton: with the special ones, all 16 tokens there are
    tagged = replace(TAGGED, words=(words,) * 4, tags=((0,) * 7,) * 4)
    asked = probe(tmp_path, tagged, replace(BERT, task="token-classification"))
    assert asked.rows.lengths.tolist() == [16] * 4
    longer = replace(tagged, words=((*words, "new"),) * 4, tags=((0,) * 8,) * 4)
    assert asked.reader.read(longer).lengths.tolist() == [16] * 4


def test_texts_without_letters_have_no_typing_errors(tmp_path: Path) -> None:
    digits = LabelledTexts(texts=("12", "3"), labels=(0, 1), label_names=("a", "b"))
    asked = probe(tmp_path, digits)
    assert equal(asked.noised(1.0, 0), asked.rows)


def test_pixels_deviate_by_as_much_as_the_rate_says() -> None:
    asked = of_images(Path())
    noised = asked.noised(0.1, 0)
    assert isinstance(noised, ImageRows)
    deviation = (noised.pixels.float() - pixels().pixels.float()).std() / 255
    assert float(deviation) == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("name", ["texts", "pairs", "tags"])
def test_texts_are_read_again_in_the_words_that_a_tokenizer_has_left(
    name: str, tmp_path: Path
) -> None:
    made = PROBES[name](tmp_path)
    assert isinstance(made, TextProbe)
    spec = json.loads(made.reader.tokenizer.to_str())
    kept = kept_ids(spec, sorted({*made.rows.tokens.tolist()}))
    smaller = Tokenizer.from_str(json.dumps(trimmed_tokenizer(spec, kept)))
    again = made.read_by(replace(made.reader, tokenizer=smaller))
    assert len(kept) < made.reader.tokenizer.get_vocab_size()
    assert [kept[new] for new in again.rows.tokens.tolist()] == made.rows.tokens.tolist()
    assert torch.equal(again.rows.labels, made.rows.labels)
    noised = again.noised(0.1, seed=0)
    assert len(noised) == len(made.noised(0.1, seed=0))
    assert int(noised.tokens.max()) < len(kept)
