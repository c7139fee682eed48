"""What each step of each kind of training learns from: fine-tuning, supernet, distillation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from search.errors import InvalidInput
from search.model.transformer import Batch, ElasticTransformer, Output
from search.space import SubnetConfig
from search.training.loop import LossesAt
from search.training.losses import DistillationLoss, relation_error
from search.training.order import BatchOrder, Part
from search.training.sampling import Sampling, SubnetSampler
from search.training.tasks import task_of

TargetOf = Callable[[list[int], Batch], Output]
"""The teacher's outputs for rows of the training split; see `teacher_of`."""

TEACHERS = ("fixed", "inplace", "none")


def finetuning_losses(
    model: ElasticTransformer, order: BatchOrder, subnet: SubnetConfig | None = None
) -> LossesAt:
    """Plain training on the labels, of the whole network or of a subnet."""
    task = task_of(model.shape)

    def losses_at(step: int) -> Iterator[Tensor]:
        for part in order.parts(step):
            yield part.share * task.loss(model(part.batch, subnet), part.labels)

    return losses_at


def supernet_losses(
    supernet: ElasticTransformer,
    order: BatchOrder,
    sampler: SubnetSampler,
    target_of: TargetOf | None,
    loss: DistillationLoss,
) -> LossesAt:
    """Every subnet of a step learns from `target_of`, from the labels alone where that is None."""

    def losses_at(step: int) -> Iterator[Tensor]:
        subnets = sampler.subnets_at(step)
        for part in order.parts(step):
            weight = part.share / len(subnets)
            target = target_of(part.places, part.batch) if target_of else None
            for subnet in subnets:
                yield weight * _loss_of(supernet, subnet, target, part, loss)

    return losses_at


def inplace_losses(
    supernet: ElasticTransformer,
    order: BatchOrder,
    sampler: SubnetSampler,
    loss: DistillationLoss,
) -> LossesAt:
    """The largest subnet learns from the labels and teaches the others of the same step.

    (Yu and Huang, arXiv 1903.05134, section 3.3.) No other network is needed, and what is taught
    gets better meanwhile.
    """
    check_inplace(sampler.sampling)

    def losses_at(step: int) -> Iterator[Tensor]:
        largest, *others = sampler.subnets_at(step)
        for part in order.parts(step):
            weight = part.share / (1 + len(others))
            output = supernet(part.batch, largest)
            target = _as_teacher(output, largest, supernet.sizes.num_layers)
            yield weight * loss.task.loss(output, part.labels)
            del output
            for subnet in others:
                yield weight * _loss_of(supernet, subnet, target, part, loss)

    return losses_at


def check_inplace(sampling: Sampling) -> None:
    """Raises: InvalidInput where a step may come without its largest subnet."""
    if sampling.strategy != "sandwich" or sampling.largest_every != 1:
        raise InvalidInput(
            "training.supernet_teacher",
            "inplace needs the largest subnet in every step: a sandwich with largest_every 1",
        )


def freeze_words_(model: ElasticTransformer) -> None:
    """The word table stays as it is: most of a small model's weights, and subnets need it alike.

    A table that is the head too goes on learning.
    """
    if not (model.shape.reads_images or model.shape.has_tied_head):
        model.embeddings.word.weight.requires_grad_(False)


def distillation_losses(
    student: ElasticTransformer,
    subnet: SubnetConfig,
    order: BatchOrder,
    target_of: TargetOf,
    loss: DistillationLoss,
) -> LossesAt:
    """Losses of an extracted `student` against the outputs that `target_of` gives for its rows.

    Args:
        subnet: which layers of the teacher the student keeps, and the precision it trains under.
    """
    sizes = subnet.renumbered()

    def losses_at(step: int) -> Iterator[Tensor]:
        for part in order.parts(step):
            target = target_of(part.places, part.batch)
            output = student(part.batch, sizes, with_attention=loss.attention > 0)
            yield part.share * loss(output, subnet, target, part.batch, part.labels)

    return losses_at


def relation_losses(
    student: ElasticTransformer, order: BatchOrder, target_of: TargetOf, *, relation_heads: int
) -> LossesAt:
    """The relations of a student's last layer against those that `target_of` gives, no labels."""
    is_causal = student.shape.is_causal

    def losses_at(step: int) -> Iterator[Tensor]:
        for part in order.parts(step):
            target = target_of(part.places, part.batch)
            output = student(part.batch)
            yield part.share * relation_error(
                output, target, part.batch, is_causal=is_causal, relation_heads=relation_heads
            )

    return losses_at


def _loss_of(
    supernet: ElasticTransformer,
    subnet: SubnetConfig,
    target: Output | None,
    part: Part,
    loss: DistillationLoss,
) -> Tensor:
    output = supernet(part.batch, subnet)
    if target is None:
        return loss.task.loss(output, part.labels)
    return loss(output, subnet, target, part.batch, part.labels)


def _as_teacher(output: Output, subnet: SubnetConfig, num_layers: int) -> Output:
    """Its values alone, hidden states at the places that their layers have in the supernet."""
    hidden = [torch.empty(0)] * (num_layers + 1)
    for place, layer in enumerate(subnet.layers, start=1):
        hidden[layer + 1] = output.hidden[place].detach()
    relations = tuple(relation.detach() for relation in output.relations)
    return Output(output.logits.detach(), tuple(hidden), relations)
