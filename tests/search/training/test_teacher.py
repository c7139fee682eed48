"""The teacher's outputs, kept: for every task as the teacher itself would answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from search.model.transformer import ElasticTransformer, Output
from search.shape import ModelShape
from search.training.batches import TokenRows
from search.training.tasks import IGNORED
from search.training.teacher import LiveTeacher, TeacherOutputs, kept_bytes, teacher_of
from tests.search.small import SHAPE, network, task

LAYERS = tuple(range(SHAPE.num_layers))
SHAPES = {
    "text-classification": SHAPE,
    "token-classification": replace(SHAPE, task="token-classification", num_labels=3),
    "sentence-embedding": replace(SHAPE, task="sentence-embedding", num_labels=0),
    "language-modelling": replace(
        SHAPE,
        family="llama",
        task="language-modelling",
        num_labels=SHAPE.vocab_size,
        is_causal=True,
        norm_first=True,
        norm="rms",
        positions="rotary",
        queries_per_group=2,
        num_token_types=0,
        has_tied_head=True,
    ),
}


def rows_for(shape: ModelShape, num_rows: int = 40) -> TokenRows:
    rows = task(num_rows)
    if not shape.answers_per_token:
        return rows
    labels = torch.where(rows.tokens % 5 == 0, IGNORED, rows.tokens % 3).long()
    return TokenRows(rows.tokens, rows.offsets, labels, has_token_labels=True)


def teacher(shape: ModelShape) -> ElasticTransformer:
    torch.manual_seed(0)
    model = ElasticTransformer(shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("norm.weight"):
                parameter.normal_(std=0.2)
    return model.eval()


def heads_of(output: Output) -> list[Tensor]:
    """The relations, then every layer's attention."""
    return [part for layer in (output.relations, *output.attention) for part in layer]


@pytest.mark.parametrize("name", SHAPES)
def test_kept_outputs_are_those_of_the_teacher(name: str) -> None:
    shape = SHAPES[name]
    model, rows = teacher(shape), rows_for(shape)
    kept = TeacherOutputs(model, rows, LAYERS, relations=True, attention=True)
    places = [3, 31, 7]
    given = rows.batch(places)
    with torch.no_grad():
        asked = model(given, with_attention=True)
    answered = kept(places, given)
    real_BT = given.attention_mask.bool()

    def real(values: Tensor) -> Tensor:
        return values[real_BT] if shape.answers_per_token else values

    torch.testing.assert_close(real(answered.logits), real(asked.logits), atol=1e-4, rtol=1e-4)
    for layer in LAYERS:
        mine, theirs = answered.hidden[layer + 1][real_BT], asked.hidden[layer + 1][real_BT]
        torch.testing.assert_close(mine, theirs, atol=0.02, rtol=0.01)
    for mine, theirs in zip(heads_of(answered), heads_of(asked), strict=True):
        assert mine.shape == theirs.shape
        mine, theirs = (r.transpose(1, 2)[real_BT] for r in (mine, theirs))
        torch.testing.assert_close(mine, theirs, atol=0.02, rtol=0.01)


@pytest.mark.parametrize(("relations", "attention"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("name", SHAPES)
def test_what_they_take_is_known_beforehand(name: str, relations: bool, attention: bool) -> None:
    shape = SHAPES[name]
    rows = rows_for(shape)
    asked = {"relations": relations, "attention": attention}
    kept = TeacherOutputs(teacher(shape), rows, LAYERS, **asked)
    assert kept.num_bytes == kept_bytes(shape, rows.lengths, **asked)


def test_a_vocabulary_is_never_kept() -> None:
    shape = replace(SHAPES["language-modelling"], vocab_size=50_000, num_labels=50_000)
    lengths = torch.full((100,), 128)
    assert kept_bytes(shape, lengths, relations=False) < 0.01 * 4 * 12_800 * shape.vocab_size


def test_a_teacher_whose_outputs_do_not_fit_is_asked_every_time() -> None:
    model, rows = network(), task(20)
    needed = kept_bytes(SHAPE, rows.lengths, relations=False)
    assert isinstance(teacher_of(model, rows, max_bytes=needed), TeacherOutputs)
    live = teacher_of(model.train(), rows, max_bytes=needed - 1)
    assert isinstance(live, LiveTeacher)
    given = rows.batch([1, 2])
    first, again = live([1, 2], given), live([1, 2], given)
    assert torch.equal(first.logits, again.logits)  # no dropout
    assert not first.logits.requires_grad


def test_a_teacher_without_token_types_reads_the_ids_alone() -> None:
    shape = replace(SHAPE, num_token_types=0)
    model, rows = teacher(shape), task(8)
    typed = replace(rows, token_types=torch.ones_like(rows.tokens, dtype=torch.int8))
    plain, given = rows.batch([1, 2]), typed.batch([1, 2])
    assert given.token_types is not None
    for target_of in (LiveTeacher(model), TeacherOutputs(model, typed, LAYERS)):
        answer = target_of([1, 2], given).logits
        torch.testing.assert_close(answer, model(plain).logits.detach(), atol=1e-5, rtol=1e-5)
