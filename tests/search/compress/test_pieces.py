from __future__ import annotations

import json
import random
from typing import Any

import pytest

from search.compress.pieces import kept_ids, replacements, trimmed_tokenizer
from search.errors import InvalidInput
from tests.search.compress.vocabularies import (
    HELD_OUT,
    KINDS,
    TRAIN,
    reader,
    rows_of,
    size_of,
    spec_of,
)

WORDS = sorted({word for text in (*TRAIN, *HELD_OUT) for word in text.split()})


def trimmed(kind: str) -> tuple[dict[str, Any], dict[str, Any], list[int]]:
    """The file, the file without what `TRAIN` does not use, and the ids that it keeps."""
    spec = spec_of(kind)
    kept = kept_ids(spec, rows_of(spec, TRAIN).tokens.unique().tolist())
    return spec, trimmed_tokenizer(spec, kept), kept


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_whose_tokens_all_stay_is_tokenized_as_before(kind: str) -> None:
    spec, smaller, kept = trimmed(kind)
    assert size_of(smaller) == len(kept) < size_of(spec)
    before, after = reader(spec), reader(smaller)
    rng, same = random.Random(0), 0
    for _ in range(300):
        text = " ".join(rng.choices(WORDS, k=rng.randint(1, 4)))
        encoding = before.encode(text)
        if set(encoding.ids) <= set(kept):
            same += 1
            found = after.encode(text)
            assert found.tokens == encoding.tokens
            assert [kept[i] for i in found.ids] == encoding.ids
    assert same > 20


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_that_could_be_tokenized_still_can(kind: str) -> None:
    spec, smaller, kept = trimmed(kind)
    letters = sorted({letter for word in WORDS for letter in word})
    before, after = reader(spec), reader(smaller)
    rng, num_fallen = random.Random(0), 0
    for _ in range(200):
        text = "".join(rng.choices([*letters, " "], k=6)) + " " + rng.choice(HELD_OUT)
        encoding, found = before.encode(text), after.encode(text)
        num_fallen += not set(encoding.ids) <= set(kept)
        if "[UNK]" not in encoding.tokens:
            assert written(found.tokens) == written(encoding.tokens)
    assert num_fallen > 50


def written(tokens: list[str]) -> str:
    """The letters of a text, in whatever pieces."""
    return "".join(tokens).replace("##", "")


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_special_tokens_stay_around_texts_and_in_the_padding(kind: str) -> None:
    spec, smaller, _ = trimmed(kind)
    before, after = reader(spec), reader(smaller)
    first, last = before.encode("cat").tokens[0], before.encode("cat").tokens[-1]
    encoding = after.encode("zzz", "cat")
    assert (encoding.tokens[0], encoding.tokens[-1]) == (first, last)
    assert encoding.ids[0] == after.token_to_id(first)
    assert smaller["padding"]["pad_id"] == 0


def test_padding_with_another_token_than_the_first_keeps_that_token() -> None:
    spec = spec_of("wordpiece")
    cat = reader(spec).token_to_id("cat")
    spec = spec | {"padding": spec["padding"] | {"pad_id": cat}}
    kept = kept_ids(spec, [])
    assert cat in kept
    assert kept[trimmed_tokenizer(spec, kept)["padding"]["pad_id"]] == cat


def test_an_added_token_stays_though_no_text_has_it() -> None:
    tokenizer = reader(spec_of("wordpiece"))
    tokenizer.add_special_tokens(["[MASK]"])
    spec = json.loads(tokenizer.to_str())
    kept = kept_ids(spec, [])
    found = reader(trimmed_tokenizer(spec, kept)).encode("a [MASK]", add_special_tokens=False)
    assert [kept[i] for i in found.ids] == [
        tokenizer.token_to_id(name) for name in ("a", "[MASK]")
    ]


def test_the_least_likely_piece_stays_since_an_unknown_character_costs_more_than_that() -> None:
    vocab = [["[UNK]", 0.0], ["a", -1.0], ["b", -2.0], ["ab", -30.0], ["bc", -9.0]]
    spec = {"model": {"type": "Unigram", "unk_id": 0, "vocab": vocab}}
    assert kept_ids(spec, []) == [0, 1, 2, 3]


def test_a_merge_stays_only_with_its_result_and_both_of_its_parts() -> None:
    spec, smaller, kept = trimmed("bpe")
    vocab, merges = smaller["model"]["vocab"], smaller["model"]["merges"]
    assert 0 < len(merges) < len(spec["model"]["merges"])
    assert all({first, second, first + second} <= set(vocab) for first, second in merges)
    order = [spec["model"]["merges"].index(merge) for merge in merges]
    assert order == sorted(order)
    # "Ġthe" is used, and what it is merged from is not: that stays all the same.
    used = set(rows_of(spec, TRAIN).tokens.tolist())
    names = {i: piece for piece, i in spec["model"]["vocab"].items()}
    ways = {i for i in kept if i not in used and len(names.get(i, "")) > 1}
    assert ways


@pytest.mark.parametrize("kind", KINDS)
def test_what_fell_away_is_replaced_as_the_smaller_tokenizer_tokenizes_it(kind: str) -> None:
    spec, smaller, kept = trimmed(kind)
    instead = replacements(spec, kept)
    assert all(instead[old] == (new,) for new, old in enumerate(kept))
    checked = 0
    for word in WORDS:
        ids = reader(spec).encode(word, add_special_tokens=False).ids
        if len(ids) == 1 and ids[0] not in kept:
            checked += 1
            expected = reader(smaller).encode(word, add_special_tokens=False).ids
            assert list(instead[ids[0]]) == expected
            assert len(expected) > 1
    assert checked


def test_a_piece_inside_of_a_word_is_replaced_by_pieces_inside_of_a_word() -> None:
    vocab = {"[UNK]": 0, "a": 1, "##b": 2, "##c": 3, "##bc": 4, "##xc": 5}
    spec = {"model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": vocab}}
    kept = kept_ids(spec, [])
    assert kept == [0, 1, 2, 3]
    instead = replacements(spec, kept)
    assert instead[4] == (2, 3)
    assert instead[5] == (0,), "no piece begins with x: the word is unknown"


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ({"type": "WordLevel", "vocab": {"a": 0}}, "not of WordLevel"),
        (
            {"type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "</w>"},
            "end_of_word_suffix cannot be trimmed",
        ),
    ],
)
def test_a_tokenizer_that_cannot_be_trimmed_is_refused(model: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        kept_ids({"model": model}, [])
    assert caught.value.field == "tokenizer.json"


def test_a_piece_that_nothing_can_replace_is_refused() -> None:
    spec = {"model": {"type": "WordPiece", "vocab": {"a": 0, "bc": 1}}}
    with pytest.raises(InvalidInput, match="no pieces to write 'bc' with"):
        replacements(spec, kept_ids(spec, []))
