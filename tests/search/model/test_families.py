"""What holds for every family: prefixes, extraction, reordering."""

from __future__ import annotations

import random
from dataclasses import replace
from math import prod

import pytest
import torch

from search.costs import num_params
from search.model.extract import extract
from search.model.reorder import measure_importance, reorder_
from search.model.transformer import Batch
from search.shape import ModelShape
from search.space import SearchSpace
from search.training.tasks import answers, task_of
from search.weights import weight_shapes
from tests.search.families import SHAPES, batch_of, network_of

FAMILIES = pytest.mark.parametrize("name", SHAPES)


def space_of(shape: ModelShape) -> SearchSpace:
    return SearchSpace.for_shape(shape, "wide")


def labels_of(shape: ModelShape, batch: Batch) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    if not shape.answers_per_token:
        return torch.randint(0, shape.num_labels, (len(batch.inputs),), generator=generator)
    size = batch.attention_mask.shape
    labels = torch.randint(0, shape.num_labels, size, generator=generator)
    return labels.masked_fill(batch.attention_mask == 0, -100)


@FAMILIES
def test_weights_are_those_that_are_counted(name: str) -> None:
    model, shape = network_of(SHAPES[name]), SHAPES[name]
    sizes = {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert sizes == weight_shapes(shape, model.sizes)
    assert num_params(shape, model.sizes) == sum(map(prod, sizes.values()))


@FAMILIES
@pytest.mark.parametrize("precision", ["fp32", "int8", "as drawn"])
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_an_extracted_network_answers_as_within_the_supernet(
    name: str, precision: str, seed: int
) -> None:
    shape, model = SHAPES[name], network_of(SHAPES[name])
    subnet = space_of(shape).sample(random.Random(seed))
    if precision != "as drawn":
        subnet = subnet.with_precision(precision)
    given = batch_of(shape)
    within, alone = model(given, subnet), extract(model, subnet)
    assert {n: tuple(p.shape) for n, p in alone.named_parameters()} == weight_shapes(shape, subnet)
    found = alone.eval()(given, subnet.renumbered())
    torch.testing.assert_close(found.logits, within.logits, atol=1e-5, rtol=1e-4)
    assert found.hidden[-1].shape[-1] == subnet.width_in(shape)


@FAMILIES
def test_outputs_are_equal_before_and_after_reordering(name: str) -> None:
    shape, model, given = SHAPES[name], network_of(SHAPES[name]), batch_of(SHAPES[name])
    batches = [(given, labels_of(shape, given))]
    importance = measure_importance(model, batches, task_of(shape).loss)
    assert len(importance.heads[0]) == shape.num_kv_heads
    real = given.attention_mask.bool() if shape.answers_per_token else slice(None)
    with torch.no_grad():
        before = model(given).logits[real]
        reorder_(model, importance)
        after = model(given).logits[real]
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    again = measure_importance(model, batches, task_of(shape).loss)
    for units in (*again.heads, *again.neurons, again.features):
        assert torch.all(units.diff() <= 1e-5 * units.max())


@FAMILIES
def test_gradients_reach_every_weight(name: str) -> None:
    shape, model, given = SHAPES[name], network_of(SHAPES[name]), batch_of(SHAPES[name])
    task_of(shape).loss(model(given), labels_of(shape, given)).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # The bias of keys moves every score of a query alike, which softmax does not see.
    idle = [n for n in idle if not n.endswith(("k.bias", "token_type.weight"))]
    assert idle == []


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
@torch.no_grad()
def test_what_comes_later_changes_nothing_before(name: str) -> None:
    shape, model = SHAPES[name], network_of(SHAPES[name])
    given = batch_of(shape, rows=1)
    changed = given.inputs.clone()
    changed[:, 5:] = 1 + (changed[:, 5:] + 7) % (shape.vocab_size - 1)
    whole, other = (model(Batch(ids, torch.ones_like(ids))).logits for ids in (given[0], changed))
    torch.testing.assert_close(other[:, :5], whole[:, :5], atol=1e-5, rtol=0)
    assert (other[:, 5:] - whole[:, 5:]).abs().max() > 1e-3


@torch.no_grad()
def test_layers_in_fp32_among_int8_lie_between_both() -> None:
    shape, model = SHAPES["bert"], network_of(SHAPES["bert"])
    given = batch_of(shape)
    full = space_of(shape).largest
    exact = model(given, full).logits
    int8 = full.with_precision("int8")
    partly = [replace(int8, float_layers=floats) for floats in ((), (0, 1), (0, 1, 2))]
    errors = [float((model(given, s).logits - exact).abs().mean()) for s in partly]
    assert errors[0] > errors[1] > errors[2] > 0


def test_only_places_with_a_label_count() -> None:
    logits = torch.randn(2, 3, 5)
    labels = torch.tensor([[1, -100, 2], [-100, -100, 4]])
    kept, wanted = answers(logits, labels)
    assert kept.shape == (3, 5)
    assert wanted.tolist() == [1, 2, 4]
