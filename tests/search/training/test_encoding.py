from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from search.data.documents import Documents
from search.data.images import Images
from search.data.splits import SPLITS, Splits
from search.data.tagged import TaggedTexts
from search.data.texts import LabelledTexts, PlainTexts
from search.errors import InvalidInput
from search.shape import ModelShape
from search.training.batches import TokenRows
from search.training.encoding import (
    TextReader,
    encode_splits,
    encode_unlabelled,
    load_rows,
    load_tokenizer,
    with_vectors,
)
from search.training.evaluate import evaluate
from search.training.image_rows import ImageRows
from search.training.rows import Rows, places_of_new
from search.training.tasks import IGNORED
from tests.search.families import SHAPES, network_of
from tests.search.training.tokenizers import WORDS, write_bytes, write_wordpiece

BERT, GPT2, VIT = (SHAPES[name] for name in ("bert", "gpt2", "vit"))
PAIRS = replace(BERT, task="pair-classification")
TAGS = replace(BERT, task="token-classification")
LABELLED = LabelledTexts(
    texts=("new york", "is not a", "a b a b", "b"),
    labels=(0, 1, 1, 0),
    label_names=("no", "yes"),
    pairs=("is", "a b", "not", "newton"),
)
ONE_EACH = Splits(train=(0,), search=(1,), validation=(2,), test=(3,))


def encode(dataset: object, folder: Path, shape: ModelShape, length: int = 16) -> dict[str, Rows]:
    return dict(encode_splits(dataset, ONE_EACH, folder, shape, max_seq_len=length))  # type: ignore[arg-type]


def words_of(rows: Rows, place: int = 0) -> list[str]:
    return [WORDS[i] for i in rows.batch([place]).inputs[0].tolist()]


def test_each_split_has_its_own_rows(tmp_path: Path) -> None:
    rows = encode(replace(LABELLED, pairs=None), write_wordpiece(tmp_path), BERT)
    assert tuple(rows) == SPLITS
    assert words_of(rows["train"]) == ["[CLS]", "new", "york", "[SEP]"]
    assert words_of(rows["test"]) == ["[CLS]", "b", "[SEP]"]
    assert [rows[name].labels_of([0]).tolist() for name in SPLITS] == [[0], [1], [1], [0]]
    assert rows["train"].batch([0]).token_types is None


def test_pairs_say_which_text_a_token_is_of(tmp_path: Path) -> None:
    rows = encode(LABELLED, write_wordpiece(tmp_path), PAIRS)["test"]
    assert words_of(rows) == ["[CLS]", "b", "[SEP]", "new", "##ton", "[SEP]"]
    types = rows.batch([0]).token_types
    assert types is not None
    assert types.tolist() == [[0, 0, 0, 1, 1, 1]]
    one_type = replace(PAIRS, num_token_types=1)
    assert encode(LABELLED, tmp_path, one_type)["test"].batch([0]).token_types is None


def test_the_longer_text_of_a_pair_is_cut(tmp_path: Path) -> None:
    rows = encode(LABELLED, write_wordpiece(tmp_path), PAIRS, length=6)["validation"]
    assert words_of(rows) == ["[CLS]", "a", "b", "[SEP]", "not", "[SEP]"]


def tagged(*rows: tuple[str, str]) -> TaggedTexts:
    words, tags = zip(*((w.split(), [int(t) for t in g.split()]) for w, g in rows), strict=True)
    return TaggedTexts(
        words=tuple(map(tuple, words)),
        tags=tuple(map(tuple, tags)),
        label_names=("0", "1", "2"),
        lines=tuple(range(11, 11 + len(rows))),
    )


def test_a_word_is_labelled_at_its_first_token(tmp_path: Path) -> None:
    dataset = tagged(("newton is york", "1 0 2"), ("a", "0"), ("a", "0"), ("bs newtons", "2 1"))
    rows = encode(dataset, write_wordpiece(tmp_path), TAGS)
    assert words_of(rows["train"]) == ["[CLS]", "new", "##ton", "is", "york", "[SEP]"]
    none = IGNORED
    assert rows["train"].labels_of([0]).tolist() == [[none, 1, none, 0, 2, none]]
    assert words_of(rows["test"]) == ["[CLS]", "b", "##s", "new", "##ton", "##s", "[SEP]"]
    assert rows["test"].labels_of([0]).tolist() == [[none, 2, none, 1, none, none, none]]


def test_words_of_a_vocabulary_of_bytes_begin_with_their_space(tmp_path: Path) -> None:
    dataset = tagged(*[("the cat sat", "0 1 2")] * 4)
    shape = replace(TAGS, vocab_size=300)
    rows = encode(dataset, write_bytes(tmp_path), shape)["train"]
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert rows.batch([0]).inputs[0].tolist() == tokenizer.encode(" the cat sat").ids
    assert [label for label in rows.labels_of([0])[0].tolist() if label != IGNORED] == [0, 1, 2]


def test_a_sentence_of_too_many_tokens_is_named_by_its_line(tmp_path: Path) -> None:
    dataset = tagged(("a", "0"), ("a", "0"), ("a " * 7, "0 " * 7), ("a", "0"))
    with pytest.raises(InvalidInput, match=r"line 13 has 9 tokens, .*max_seq_len is 8") as caught:
        encode(dataset, write_wordpiece(tmp_path), TAGS, length=8)
    assert caught.value.field == "data.text"


DOCUMENTS = Documents(
    texts=(
        "the cat sat on the mat, the cat sat",
        "the cat",
        "xyz the mat",
        "on the mat on the mat",
    ),
    num_documents=4,
)


@pytest.mark.parametrize("length", [2, 3, 16])
def test_every_token_but_the_first_is_asked_for_once(tmp_path: Path, length: int) -> None:
    shape = replace(GPT2, vocab_size=300, num_labels=300)
    rows = encode(DOCUMENTS, write_bytes(tmp_path), shape, length)
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    for name, text in zip(SPLITS, DOCUMENTS.texts, strict=True):
        ids = tokenizer.encode(text).ids
        inputs: list[int] = []
        labels: list[int] = []
        for place in range(len(rows[name])):
            inputs += rows[name].batch([place]).inputs[0].tolist()
            labels += rows[name].labels_of([place])[0].tolist()
        assert inputs == ids[:-1]
        assert labels == ids[1:]
        assert int(rows[name].lengths.max()) == min(length, len(ids) - 1)


def test_texts_longer_than_the_models_positions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="at most 24, the model's positions, got 25") as caught:
        encode(LABELLED, write_wordpiece(tmp_path), BERT, length=25)
    assert caught.value.field == "training.max_seq_len"


def test_a_split_without_a_token_to_predict_is_refused(tmp_path: Path) -> None:
    dataset = replace(DOCUMENTS, texts=("x", *DOCUMENTS.texts[1:]))
    with pytest.raises(InvalidInput, match="without two tokens in a row"):
        encode(dataset, write_bytes(tmp_path), replace(GPT2, vocab_size=300, num_labels=300))


def test_further_texts_are_read_as_those_of_a_split(tmp_path: Path) -> None:
    rows = encode(LABELLED, write_wordpiece(tmp_path), PAIRS, 5)["test"]
    reader = TextReader(load_tokenizer(tmp_path / "tokenizer.json"), PAIRS, 5)
    text = replace(LABELLED, texts=("b",), labels=(0,), pairs=("newton",))
    for read, kept in ((reader.read(text), rows), (reader.read(text), rows)):
        assert isinstance(kept, TokenRows)
        assert isinstance(kept.token_types, torch.Tensor)
        assert torch.equal(read.tokens, kept.tokens)
        assert read.token_types is not None
        assert torch.equal(read.token_types, kept.token_types)
        assert torch.equal(read.labels, kept.labels)


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "None"}}')
    with pytest.raises(InvalidInput, match="cannot be read") as caught:
        encode(LABELLED, tmp_path, BERT)
    assert caught.value.field == "tokenizer.json"


def test_the_teachers_vectors_are_the_answers_of_texts_without_labels(tmp_path: Path) -> None:
    shape = replace(BERT, task="sentence-embedding", num_labels=0)
    dataset = PlainTexts(texts=LABELLED.texts)
    rows = encode(dataset, write_wordpiece(tmp_path), shape)["validation"]
    assert rows.labels_of([0]).shape == (1, 0)
    teacher = network_of(shape)
    answered = with_vectors(rows, teacher)
    assert answered.labels_of([0]).shape == (1, shape.embed_dim)
    assert evaluate(teacher, answered).value == pytest.approx(1.0)
    answered.save(tmp_path / "rows.safetensors")
    assert torch.equal(load_rows(tmp_path / "rows.safetensors").labels_of([0]), answered.labels)


def images() -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    return Images(pixels=pixels, labels=(0, 1, 2, 1), label_names=("a", "b", "c"))


def test_images_are_normalised_by_the_training_split_alone(tmp_path: Path) -> None:
    dataset = images()
    rows = encode(dataset, tmp_path, VIT)
    trained = dataset.pixels[0] / 255
    for name in SPLITS:
        part = rows[name]
        assert isinstance(part, ImageRows)
        assert float(part.mean) == pytest.approx(trained.mean(), abs=1e-6)
        assert float(part.std) == pytest.approx(trained.std(), abs=1e-6)
    inputs = rows["train"].batch([0]).inputs
    assert float(inputs.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(inputs.std(correction=0)) == pytest.approx(1.0, abs=1e-5)
    assert rows["test"].labels_of([0]).tolist() == [1]
    with torch.no_grad():
        assert network_of(VIT)(rows["test"].batch([0])).logits.shape == (1, 3)


def test_a_folder_that_says_how_images_are_normalised_is_believed(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5], "image_std": [0.25]}'
    )
    rows = encode(images(), tmp_path, VIT)["search"]
    assert isinstance(rows, ImageRows)
    assert (float(rows.mean), float(rows.std)) == (0.5, 0.25)
    assert rows.preprocessor_config()["image_mean"] == [0.5]


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="the model reads 16 x 16 with 1 channel"):
        encode(images(), tmp_path, replace(VIT, image_size=16))


def test_rows_of_every_kind_are_read_back(tmp_path: Path) -> None:
    for rows, kind in (
        (encode(images(), tmp_path, VIT)["train"], ImageRows),
        (encode(LABELLED, write_wordpiece(tmp_path), PAIRS)["train"], TokenRows),
    ):
        rows.save(tmp_path / "rows.safetensors")
        again = load_rows(tmp_path / "rows.safetensors")
        assert isinstance(again, kind)
        assert torch.equal(again.batch([0]).inputs, rows.batch([0]).inputs)


def test_rows_without_labels_are_read_as_those_with_them(tmp_path: Path) -> None:
    folder = write_wordpiece(tmp_path)
    assert LABELLED.pairs is not None
    texts = PlainTexts(texts=LABELLED.texts, pairs=LABELLED.pairs)
    found = encode_unlabelled(texts, folder, PAIRS, max_seq_len=16)
    splits = encode(LABELLED, folder, PAIRS)
    assert found.labels_of([0, 1]).shape == (2, 0)
    known = [splits[name] for name in SPLITS]
    assert places_of_new(found, known) == []
    assert places_of_new(found, known[1:]) != []
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5], "image_std": [0.25]}'
    )
    more = replace(images(), labels=(), label_names=())
    pictures = encode_unlabelled(more, tmp_path, VIT, max_seq_len=16)
    assert pictures.labels_of([3]).shape == (1, 0)
    expected = encode(images(), tmp_path, VIT)["search"].batch([0]).inputs
    assert any(torch.equal(pictures.batch([i]).inputs, expected) for i in range(4))
    with pytest.raises(InvalidInput, match="the model reads 16 x 16") as caught:
        encode_unlabelled(more, tmp_path, replace(VIT, image_size=16), max_seq_len=16)
    assert caught.value.field == "unlabelled.image"
