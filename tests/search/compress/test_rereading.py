from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from search.compress.distill import TaskData
from search.compress.rereading import Rereading
from search.model.transformer import Batch, Output
from search.shape import ModelShape
from search.training.batches import TokenRows
from search.training.tasks import IGNORED
from tests.search.families import SHAPES

# Ids 0 to 5: the unknown one, a, ##b, ##c; "abc" and "##bc" fall away.
VOCAB = {"[UNK]": 0, "a": 1, "##b": 2, "##c": 3, "abc": 4, "##bc": 5, "d": 6}
SPEC = {"model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": VOCAB}}
KEPT = torch.tensor([0, 1, 2, 3, 6])  # d is 4 by now
TOKENS = ((1, 5, 6), (6, 4), (6, 6, 6))
REREAD = ((1, 2, 3, 4), (4, 1, 2, 3), (4, 4, 4))


def rereading(shape: ModelShape) -> Rereading:
    return Rereading.of(SPEC, KEPT, replace(shape, vocab_size=5))


def rows_of(rows: tuple[tuple[int, ...], ...], labels: torch.Tensor | None = None) -> TokenRows:
    tokens = torch.tensor([token for row in rows for token in row], dtype=torch.int32)
    offsets = torch.tensor([0, *map(len, rows)]).cumsum(0)
    has_token_labels = labels is not None and len(labels) == len(tokens)
    labels = torch.arange(len(rows)) if labels is None else labels
    return TokenRows(tokens, offsets, labels, has_token_labels=has_token_labels)


def as_lists(rows: TokenRows, values: torch.Tensor) -> list[list[int]]:
    return [part.tolist() for part in values.split(rows.lengths.tolist())]


def test_a_token_that_fell_away_becomes_its_pieces_and_a_row_keeps_its_label() -> None:
    found = rereading(SHAPES["bert"]).reread(rows_of(TOKENS))
    assert as_lists(found.rows, found.rows.tokens) == [list(row) for row in REREAD]
    assert found.rows.labels.tolist() == [0, 1, 2]
    assert found.rows.tokens.dtype == torch.int32
    assert as_lists(found.rows, found.sources.tokens) == [[0, 1, 1, 2], [0, 1, 1, 1], [0, 1, 2]]


def test_pieces_are_of_their_token_s_text() -> None:
    rows = replace(
        rows_of(TOKENS), token_types=torch.tensor([0, 0, 1, 0, 1, 0, 1, 1], dtype=torch.int8)
    )
    found = rereading(SHAPES["bert"]).reread(rows).rows
    assert found.token_types is not None
    assert as_lists(found, found.token_types) == [[0, 0, 0, 1], [0, 1, 1, 1], [0, 1, 1]]


def test_a_token_s_tag_is_its_first_piece_s() -> None:
    shape = replace(SHAPES["bert"], task="token-classification")
    rows = rows_of(TOKENS, torch.tensor([2, 1, IGNORED, 0, 1, 2, 2, 2]))
    found = rereading(shape).reread(rows).rows
    none = IGNORED
    assert as_lists(found, found.labels) == [[2, 1, none, none], [0, 1, none, none], [2, 2, 2]]


def test_a_language_model_is_asked_for_the_piece_that_follows() -> None:
    rows = rows_of(((6, 4, 6), (1, 5)), torch.tensor([4, 6, 4, 5, 6]))
    found = rereading(SHAPES["gpt2"]).reread(rows).rows
    assert as_lists(found, found.tokens) == [[4, 1, 2, 3, 4], [1, 2, 3]]
    assert as_lists(found, found.labels) == [[1, 2, 3, 4, 1], [2, 3, 4]]


@pytest.mark.parametrize(("family", "expected"), [("bert", [1, 2, 4]), ("gpt2", [1, 2, 3])])
def test_a_row_that_no_longer_fits_is_cut_an_encoder_s_before_its_last_token(
    family: str, expected: list[int]
) -> None:
    shape = replace(SHAPES[family], max_seq_len=3)
    rows = rows_of(TOKENS) if family == "bert" else rows_of(TOKENS, torch.full((8,), 6))
    found = rereading(shape).reread(rows)
    assert found.rows.lengths.tolist() == [3, 3, 3]
    assert as_lists(found.rows, found.rows.tokens)[0] == expected
    assert as_lists(found.rows, found.rows.tokens)[2] == [4, 4, 4]
    assert len(found.rows.labels) == (3 if family == "bert" else 9)
    assert found.sources.lengths.tolist() == [3, 3, 3]


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_the_teacher_reads_its_own_ids_and_every_piece_learns_what_it_says_of_the_token(
    task: str,
) -> None:
    shape = replace(SHAPES["bert"], task=task)
    labels = torch.zeros(8, dtype=torch.int64) if shape.answers_per_token else None
    rows = rows_of(TOKENS, labels)
    read = rereading(shape).task(TaskData(rows, rows, echo(shape), batch_size=2))
    places = [2, 0]
    batch = read.train.batch(places)
    target = read.target_of(places, batch)
    assert batch.inputs.tolist() == [[4, 4, 4, 0], [1, 2, 3, 4]]
    expected = torch.tensor([[6.0, 6, 6], [1, 5, 6]])
    sources = torch.tensor([[0, 1, 2], [0, 1, 1]])
    for hidden in (target.hidden[0][..., 0], target.relations[0][:, 0, :, 0]):
        assert torch.equal(hidden[:, :3], expected.gather(1, sources))
        assert hidden[1, 3] == 6
    assert target.hidden[1].numel() == 0, "a layer that the teacher did not keep"
    if shape.answers_per_token:
        assert torch.equal(target.logits[..., 0], target.hidden[0][..., 0])
    else:
        assert target.logits.tolist() == [[18.0], [12.0]]


def test_a_language_model_s_teacher_is_asked_for_the_words_that_are_left() -> None:
    rows = rows_of(((6, 1), (6, 6)), torch.tensor([6, 1, 6, 6]))
    words = torch.arange(7.0)

    def target_of(_places: list[int], batch: Batch) -> Output:
        return Output(words.expand(*batch.inputs.shape, 7), ())

    task = TaskData(rows, rows, target_of, batch_size=2)
    read = rereading(SHAPES["gpt2"]).task(task)
    logits = read.target_of([0, 1], read.train.batch([0, 1])).logits
    assert logits.shape == (2, 2, 5)
    assert logits[1, 0].tolist() == KEPT.tolist()


def echo(shape: ModelShape):  # type: ignore[no-untyped-def]
    """A teacher whose every state is the id that it reads; its answer is their sum, or they."""

    def target_of(_places: list[int], batch: Batch) -> Output:
        states_BT1 = (batch.inputs * batch.attention_mask).float().unsqueeze(-1)
        logits = states_BT1 if shape.answers_per_token else states_BT1.sum(1)
        relation_BHTN = states_BT1.unsqueeze(1)
        return Output(logits, (states_BT1, torch.empty(0)), (relation_BHTN,))

    return target_of
