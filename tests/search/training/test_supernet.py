"""What a step of elastic training asks of each subnet, and who teaches it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from search.errors import InvalidInput
from search.model.transformer import ElasticTransformer, Output
from search.space import SearchSpace
from search.training.evaluate import evaluate
from search.training.loop import TrainingRun
from search.training.losses import DistillationLoss
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.sampling import Sampling, SubnetSampler
from search.training.supernet import (
    finetuning_losses,
    freeze_words_,
    inplace_losses,
    supernet_losses,
)
from search.training.teacher import LiveTeacher
from tests.search.small import MIXED, SHAPE, SPACE, network, task

LOSS = DistillationLoss.for_shape(SHAPE)
ROWS = task(64)


def sampler(space: SearchSpace = SPACE, **options: object) -> SubnetSampler:
    sampling = Sampling(**options)  # type: ignore[arg-type]
    return SubnetSampler(space, sampling, total_steps=10, seed=3)


def order() -> BatchOrder:
    return BatchOrder(ROWS, 16, 3)


def test_a_step_minimises_the_mean_over_its_subnets() -> None:
    model, teacher = network(1), LiveTeacher(network())
    draws = sampler(num_random=2)
    places, given, labels = order()[4]
    target = teacher(places, given)
    with torch.no_grad():
        wanted = [LOSS(model(given, s), s, target, given, labels) for s in draws.subnets_at(4)]
        found = list(supernet_losses(model, order(), draws, teacher, LOSS)(4))
    assert len(found) == 4
    torch.testing.assert_close(torch.stack(found).sum(), torch.stack(wanted).mean())


def test_without_a_teacher_labels_teach() -> None:
    model, draws = network(1), sampler(strategy="uniform")
    _, given, labels = order()[2]
    with torch.no_grad():
        (found,) = supernet_losses(model, order(), draws, None, LOSS)(2)
        (subnet,) = draws.subnets_at(2)
        wanted = torch.nn.functional.cross_entropy(model(given, subnet).logits, labels)
    torch.testing.assert_close(found, wanted)


def test_in_place_the_largest_learns_labels_and_teaches_the_rest() -> None:
    """The largest has fewer layers than the model: hidden states are matched by the model's."""
    space = replace(SPACE, num_layers=(1, 2), layer_order=(2, 0, 1))
    model, draws = network(1), sampler(space)
    _, given, labels = order()[0]
    largest, smallest, drawn = draws.subnets_at(0)
    first, second, third = inplace_losses(model, order(), draws, LOSS)(0)
    with torch.no_grad():
        output = model(given, largest)
        hidden = [torch.empty(0)] * 4
        for place, layer in enumerate(largest.layers, start=1):
            hidden[layer + 1] = output.hidden[place]
        target = Output(output.logits, tuple(hidden), output.relations)
        plain = torch.nn.functional.cross_entropy(output.logits, labels)
    torch.testing.assert_close(3 * first.detach(), plain)
    for found, subnet in ((second, smallest), (third, drawn)):
        wanted = LOSS(model(given, subnet), subnet, target, given, labels)
        torch.testing.assert_close(3 * found, wanted)


def test_in_place_the_teacher_is_not_pulled_to_its_students() -> None:
    model = network(1)
    only_large = SearchSpace(
        num_layers=(1, 3),
        num_heads=(4,),
        ffn_dim=(64,),
        precision=("fp32",),
        layer_order=(2, 0, 1),
    )
    losses = iter(inplace_losses(model, order(), sampler(only_large, num_random=0), LOSS)(0))
    next(losses)
    next(losses).backward()  # of the smallest: one layer
    assert model.layers[2].get_parameter("ffn.up.weight").grad is not None
    assert model.layers[1].get_parameter("ffn.up.weight").grad is None


@pytest.mark.parametrize("options", [{"strategy": "uniform"}, {"largest_every": 2}])
def test_in_place_needs_the_largest_in_every_step(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as caught:
        inplace_losses(network(), order(), sampler(**options), LOSS)
    assert caught.value.field == "training.supernet_teacher"


def test_the_word_table_is_frozen_unless_it_is_the_head_too() -> None:
    model = network()
    freeze_words_(model)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["embeddings.word.weight"]
    tied = ElasticTransformer(replace(SHAPE, has_tied_head=True))
    freeze_words_(tied)
    assert all(p.requires_grad for p in tied.parameters())


def test_a_subnet_is_trained_alone_without_touching_the_rest() -> None:
    model = network(1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run = TrainingRun(model, Schedule(learning_rate=1e-2, total_steps=2), seed=0)
    run.advance(finetuning_losses(model, order(), MIXED), should_stop=lambda: False)
    after = dict(model.named_parameters())
    assert torch.equal(after["layers.1.attn.q.weight"], before["layers.1.attn.q.weight"])
    assert not torch.equal(after["layers.0.attn.q.weight"], before["layers.0.attn.q.weight"])


def _teacher_that_knows(rows: int = 160) -> ElasticTransformer:
    teacher = network()
    with torch.no_grad():
        for parameter in teacher.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.3)
    run = TrainingRun(teacher, Schedule(learning_rate=1e-2, total_steps=60), seed=0)
    run.advance(
        finetuning_losses(teacher, BatchOrder(task(rows), 32, 0)), should_stop=lambda: False
    )
    return teacher


def test_elastic_training_teaches_the_smallest_and_keeps_the_largest() -> None:
    teacher = _teacher_that_knows()
    unseen = task(80, seed=1)
    model = ElasticTransformer(SHAPE)
    model.load_state_dict(teacher.state_dict())
    largest, smallest = (s.with_precision("fp32") for s in (SPACE.largest, SPACE.smallest))
    before = evaluate(model, unseen, smallest)
    losses_at = supernet_losses(
        model,
        BatchOrder(task(160), 32, 1),
        SubnetSampler(SPACE, Sampling(), total_steps=40, seed=0),
        LiveTeacher(teacher),
        LOSS,
    )
    run = TrainingRun(model, Schedule(learning_rate=1e-2, total_steps=40), seed=1)
    run.advance(losses_at, should_stop=lambda: False)
    assert evaluate(model, unseen, smallest).loss < before.loss
    assert evaluate(model, unseen, largest).value > 0.9
