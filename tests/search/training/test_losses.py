"""Soft labels, hidden states and relations: what pulls a student to its teacher."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from search.model.transformer import Batch, ElasticTransformer, Output
from search.space import SubnetConfig
from search.training.losses import (
    DistillationLoss,
    Match,
    attention_error,
    hidden_error,
    num_relation_heads,
    relation_error,
)
from tests.search.small import MIXED, SHAPE, batch, network, task

FULL = SubnetConfig.full(SHAPE)


def outputs(seed: int = 0, given: Batch | None = None) -> Output:
    with torch.no_grad():
        return network(seed)(given or batch(), with_attention=True)


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it() -> None:
    rows = task(8)
    given = rows.batch(range(8))
    output = outputs(0, given)
    loss = DistillationLoss.for_shape(SHAPE, hard=0.0, attention=1.0, relations=1.0)
    value = loss(output, FULL, output, given, rows.labels_of(range(8)))
    assert float(value) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("part", ["soft", "hard", "hidden", "attention", "relations"])
def test_each_part_has_its_weight(part: str) -> None:
    rows = task(8)
    given, labels = rows.batch(range(8)), rows.labels_of(range(8))
    student, teacher = outputs(1, given), outputs(0, given)
    nothing = {"soft": 0.0, "hard": 0.0, "hidden": 0.0}

    def loss(weight: float) -> float:
        weights = {**nothing, part: weight}
        return float(
            DistillationLoss.for_shape(SHAPE, **weights)(student, FULL, teacher, given, labels)
        )

    assert loss(1.0) > 0.01
    assert loss(3.0) == pytest.approx(3 * loss(1.0), rel=1e-5)


def test_hidden_states_of_the_same_layer_are_compared() -> None:
    given, teacher = batch(), outputs()
    # The student's two layers are the teacher's first and third.
    hidden = (teacher.hidden[0], teacher.hidden[1], teacher.hidden[3])
    student = Output(teacher.logits, hidden)
    assert float(hidden_error(student, MIXED, teacher, given)) == pytest.approx(0.0, abs=1e-6)
    neighbours = replace(MIXED, layers=(0, 1))
    assert float(hidden_error(student, neighbours, teacher, given)) > 0.1


def test_a_narrower_student_is_held_against_the_first_features() -> None:
    given, teacher = batch(), outputs()
    student = Output(teacher.logits, tuple(h[..., :20] for h in teacher.hidden))
    narrow = replace(FULL, embed_dim=20)
    assert float(hidden_error(student, narrow, teacher, given)) == pytest.approx(0.0, abs=1e-6)


def test_padding_and_the_scale_of_a_token_change_no_hidden_error() -> None:
    given, teacher, student = batch(), outputs(), outputs(1)
    error = float(hidden_error(student, FULL, teacher, given))
    padding = (given.attention_mask == 0)[..., None] * 100.0
    disturbed = replace(student, hidden=tuple(h + padding for h in student.hidden))
    assert float(hidden_error(disturbed, FULL, teacher, given)) == pytest.approx(error, rel=1e-5)

    # A first token of a pre-norm network has a stream a hundred times as large as the others'.
    factor = torch.ones(given.attention_mask.shape[1])
    factor[0] = 100.0

    def scaled(output: Output) -> Output:
        return replace(output, hidden=tuple(h * factor[:, None] for h in output.hidden))

    again = hidden_error(scaled(student), FULL, scaled(teacher), given)
    assert float(again) == pytest.approx(error, rel=1e-4)


def test_the_error_of_rows_together_is_the_mean_of_the_rows_alone() -> None:
    """A batch may be cut into parts and divided among processes."""
    given, teacher, student = batch(), outputs(), outputs(1)
    together = DistillationLoss.for_shape(SHAPE, relations=1.0, attention=1.0, hard=0.0)
    labels = torch.zeros(5, dtype=torch.int64)

    def rows(output: Output, place: int) -> Output:
        one = slice(place, place + 1)
        return Output(
            output.logits[one],
            tuple(h[one] for h in output.hidden),
            tuple(r[one] for r in output.relations),
            tuple(tuple(part[one] for part in layer) for layer in output.attention),
        )

    alone = [
        together(
            rows(student, i),
            FULL,
            rows(teacher, i),
            Batch(given.inputs[i : i + 1], given.attention_mask[i : i + 1]),
            labels[:1],
        )
        for i in range(5)
    ]
    whole = together(student, FULL, teacher, given, labels)
    torch.testing.assert_close(torch.stack(alone).mean(), whole, atol=1e-5, rtol=1e-5)


def test_hidden_states_of_another_width_are_compared_through_the_projection() -> None:
    given, teacher = batch(), outputs()
    torch.manual_seed(0)
    projection = torch.nn.Linear(20, SHAPE.embed_dim, bias=False)
    narrow = tuple(h @ torch.linalg.pinv(projection.weight.T) for h in teacher.hidden)
    student = Output(teacher.logits, tuple(h.detach() for h in narrow))
    # What 20 features can say of the teacher's 32 is said: the rest is the error of the best.
    through = hidden_error(student, FULL, teacher, given, Match(projection=projection))
    assert float(through.detach()) < 0.6 * float(hidden_error(student, FULL, teacher, given))


def test_layers_may_be_matched_otherwise_than_by_what_a_subnet_keeps() -> None:
    given, teacher = batch(), outputs()
    student = Output(teacher.logits, (teacher.hidden[0], teacher.hidden[3], teacher.hidden[2]))
    match = Match(layers=(2, 1))
    assert float(hidden_error(student, MIXED, teacher, given, match)) == pytest.approx(
        0.0, abs=1e-6
    )


def attended(*layers: tuple[Tensor, Tensor]) -> Output:
    return Output(torch.empty(0), (), (), layers)


def random_heads(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Queries and keys of two rows of seven tokens."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(2, count, 7, 8, generator=generator),
        torch.randn(2, count, 7, 8, generator=generator),
    )


SEVEN = Batch(torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64))


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_is_compared_by_its_scores_each_token_s_mean_taken_off(is_causal: bool) -> None:
    (q, k), (tq, tk) = random_heads(2, 0), random_heads(2, 1)
    found = attention_error(attended((q, k)), (0,), attended((tq, tk)), SEVEN, is_causal=is_causal)
    errors = []
    for row in range(2):
        for head in range(2):
            wrong = whole = 0.0
            for token in range(7):
                seen = token + 1 if is_causal else 7
                mine = (q[row, head, token] @ k[row, head, :seen].T) / 8**0.5
                theirs = (tq[row, head, token] @ tk[row, head, :seen].T) / 8**0.5
                mine, theirs = mine - mine.mean(), theirs - theirs.mean()
                wrong += float((mine - theirs).square().sum())
                whole += float(theirs.square().sum())
            errors.append(wrong / whole)
    assert float(found) == pytest.approx(sum(errors) / 4, rel=1e-4)


def test_heads_that_were_cut_from_the_teacher_are_held_against_what_they_were() -> None:
    q, k = random_heads(4, 0)
    teacher, student = attended((q, k)), attended((q[:, [3, 1]], k[:, [3, 1]]))
    known = attention_error(student, (0,), teacher, SEVEN, heads=((3, 1),))
    assert float(known) == pytest.approx(0.0, abs=1e-6)
    assert float(attention_error(student, (0,), teacher, SEVEN, heads=((1, 3),))) > 0.5


def test_where_heads_are_not_known_their_means_are_compared() -> None:
    q, k = random_heads(1, 0)
    twice = attended((q.expand(-1, 2, -1, -1), k.expand(-1, 2, -1, -1)))
    other = attended(random_heads(1, 1))
    alone = attended((q, k))
    assert float(attention_error(alone, (0,), twice, SEVEN)) == pytest.approx(0.0, abs=1e-6)
    assert float(attention_error(other, (0,), twice, SEVEN)) > 0.5


def test_queries_that_share_a_key_attend_by_it() -> None:
    q, k = random_heads(4, 0)
    shared = attended((q, k[:, :2]))
    spread = attended((q, k[:, [0, 0, 1, 1]]))
    assert float(attention_error(shared, (0,), spread, SEVEN)) == pytest.approx(0.0, abs=1e-6)


def test_attention_sees_no_padding() -> None:
    given, student, teacher = batch(), outputs(1), outputs()
    padding_B1T1 = (given.attention_mask == 0).float()[:, None, :, None]
    disturbed = replace(
        student,
        attention=tuple(tuple(part + 9 * padding_B1T1 for part in la) for la in student.attention),
    )
    before = attention_error(student, FULL.layers, teacher, given)
    assert float(before) > 0.01
    torch.testing.assert_close(attention_error(disturbed, FULL.layers, teacher, given), before)


def by_hand(mine: Tensor, theirs: Tensor, heads: int, *, is_causal: bool) -> float:
    """Of one row's vectors, (heads, tokens, features), written as the paper has it."""

    def relation(x_HTN: Tensor, head: int) -> Tensor:
        joined = torch.cat(list(x_HTN), dim=-1)  # (T, H * N)
        part = joined.chunk(heads, -1)[head]
        scores = part @ part.T / part.shape[-1] ** 0.5
        if is_causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1) == 1, -1e9)
        return torch.softmax(scores, -1)

    total = 0.0
    for head in range(heads):
        target, given = relation(theirs, head), relation(mine, head)
        total += float((target * (target / given).log()).nan_to_num().sum(-1).mean())
    return total / heads


@pytest.mark.parametrize("is_causal", [False, True])
def test_relations_are_those_of_the_paper_whatever_the_head_counts(is_causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    # 3 heads of 8 against 4 heads of 8: relation heads 4, of 6 and of 8 features.
    mine = tuple(torch.randn(1, 3, 7, 8, generator=generator) for _ in range(3))
    theirs = tuple(torch.randn(1, 4, 7, 8, generator=generator) for _ in range(3))
    given = Batch(torch.ones(1, 7, dtype=torch.int64), torch.ones(1, 7, dtype=torch.int64))
    nothing = torch.empty(0)
    student, teacher = Output(nothing, (), mine), Output(nothing, (), theirs)
    error = relation_error(student, teacher, given, is_causal=is_causal)
    pairs = zip(mine, theirs, strict=True)
    expected = sum(by_hand(m[0], t[0], 4, is_causal=is_causal) for m, t in pairs) / 3
    assert float(error) == pytest.approx(expected, rel=1e-4)


def test_relations_see_no_padding() -> None:
    given, student, teacher = batch(), outputs(1), outputs()
    padding_B1T1 = (given.attention_mask == 0).float()[:, None, :, None]
    disturbed = replace(student, relations=tuple(r + 9 * padding_B1T1 for r in student.relations))
    before = relation_error(student, teacher, given)
    assert float(before) > 0.01
    torch.testing.assert_close(relation_error(disturbed, teacher, given), before)


def test_relation_heads_divide_both_and_are_at_most_the_teachers() -> None:
    assert num_relation_heads(288, 384, 12) == 12
    assert num_relation_heads(96, 384, 12) == 12
    assert num_relation_heads(64, 384, 12) == 8
    assert num_relation_heads(7, 12, 12) == 1


def test_gradients_reach_a_student_of_fewer_layers_and_heads() -> None:
    model, teacher = network(1), outputs()
    given, labels = batch(), torch.zeros(5, dtype=torch.int64)
    loss = DistillationLoss.for_shape(SHAPE, relations=1.0)
    loss(model(given, MIXED), MIXED, teacher, given, labels).backward()
    assert isinstance(model, ElasticTransformer)
    kept = model.layers[2].get_parameter("attn.q.weight").grad
    assert kept is not None
    assert kept[:8].abs().sum() > 0
    assert model.layers[1].get_parameter("attn.q.weight").grad is None
