"""Distillation as a stage, and what other stages need of it: steps that keep zeros at zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from search.compress.configs import DistillConfig
from search.compress.distill import Distillation
from search.compress.network import Compressed, Memory, StageData, apply_masks_, copied
from search.compress.suitability import check_suits
from search.compress.teachers import Teacher
from search.errors import InvalidInput
from search.model.transformer import ElasticTransformer
from search.training.distributed import training_device
from search.training.loop import LossesAt
from search.training.losses import DistillationLoss, Match
from search.training.rows import Rows
from search.training.supernet import TargetOf
from search.training.teacher import LiveTeacher, teacher_of

BeforeStep = Callable[[int], None]


def distill(network: Compressed, config: DistillConfig, data: StageData) -> Compressed:
    """The same network after learning from the teacher; what is masked stays zero.

    Args:
        data: in the ids of the original's vocabulary: those that a named teacher reads, too.

    Raises:
        InvalidInput: the config names a teacher that there is not, or that cannot teach this
            network; or there is no attention of the kind that it is to learn.
    """
    check_suits(config, network.model.shape)
    if config.teacher:
        teacher = data.teacher_named(f"{config.kind}.teacher", config.teacher)
        data = _taught_by(teacher, config, network, data)
    data = data.read_by(network)
    _check_says_enough(config, data)
    return taught(
        network,
        data,
        num_steps=data.num_steps(config.epochs),
        learning_rate=config.learning_rate,
        weights=config.weights | {"temperature": config.temperature},
    )


def taught(
    network: Compressed,
    data: StageData,
    *,
    num_steps: int,
    learning_rate: float,
    weights: Mapping[str, float] | None = None,
    before_step: BeforeStep | None = None,
    memory: Memory | None = None,
) -> Compressed:
    """A copy of the network after `num_steps` of distillation.

    Args:
        weights: of the parts of the loss; see `DistillationLoss`.
        before_step: called with the number of each step; without it the masks are applied. It may
            change the model in place, which it is given by `network` being a `copy_to_train`.
        memory: what `before_step` keeps between steps, if it does.
    """
    network = network if before_step else replace(network, model=copied(network.model))
    model, masks = network.model, network.masks
    distillation = Distillation(
        model,
        network.subnet,
        data.task,
        total_steps=num_steps,
        learning_rate=learning_rate,
        seed=data.seed,
        precision="fp32",
        loss=DistillationLoss.for_shape(
            model.shape, match_of(network, data.teacher), **(weights or {})
        ),
    )
    keep_zeros = before_step or (lambda _: apply_masks_(model, masks))
    data.advance(distillation.run, _preceded(distillation.losses_at, keep_zeros), memory)
    keep_zeros(num_steps)
    model.cpu().eval()
    return network


def match_of(network: Compressed, teacher: Teacher | None) -> Match:
    """What the network's parts are in its teacher: known where that is the original (None).

    With any other, layers are matched at even distances (TinyBERT, arXiv 1909.10351, section 3)
    and hidden states through a learned projection, even where the widths are equal: the features
    of two networks do not mean the same.
    """
    if teacher is None:
        return Match(heads=network.query_heads)
    width = network.model.sizes.width_in(network.model.shape)
    return Match(
        layers=even_layers(network.subnet.num_layers, teacher.model.sizes.num_layers),
        projection=_projection(width, teacher.width),
    )


def even_layers(count: int, total: int) -> tuple[int, ...]:
    """Of `total` layers one for each of `count`, the last for the last (rounded up, so that a
    student may have more layers than its teacher)."""
    return tuple(-(-(place * total) // count) - 1 for place in range(1, count + 1))


def _projection(width: int, teacher_width: int) -> nn.Module:
    """Its start leaves features as they are: a fine-tuned relative's may well be the same."""
    projection = nn.Linear(width, teacher_width, bias=False, device=training_device())
    with torch.no_grad():
        nn.init.eye_(projection.weight)
    return projection


def copy_to_train(model: ElasticTransformer) -> ElasticTransformer:
    """A copy where students are trained. Who watches a model's matrices or its gradients has to do
    so where they stay: moved, they are others. `taught` brings it back."""
    return copied(model).to(training_device())


def where_trained(model: ElasticTransformer) -> ElasticTransformer:
    """The model, or a copy of it where students are trained: they ask it at every step."""
    device = training_device()
    is_there = next(model.parameters()).device.type == device.type
    return model if is_there else copy_to_train(model)


def _preceded(losses_at: LossesAt, before_step: BeforeStep) -> LossesAt:
    def losses(step: int) -> Iterator[Tensor]:
        before_step(step)
        yield from losses_at(step)

    return losses


def _taught_by(
    teacher: Teacher, config: DistillConfig, network: Compressed, data: StageData
) -> StageData:
    """The data with this teacher's answers, once it is clear that it can give them."""
    shape = network.model.shape
    teacher.check(config.teacher, shape, data.task.train, data.tokenizer)
    if config.soft:
        teacher.check_answers(config.teacher, shape, data.label_names)
    if config.attention:
        teacher.facts.check_attention(f"teachers.{config.teacher}")
    target_of = _answers(teacher, config, data)
    return replace(data, task=replace(data.task, target_of=target_of), teacher=teacher)


def _check_says_enough(config: DistillConfig, data: StageData) -> None:
    """Raises: InvalidInput where the teacher's answers do not have what is to be learnt."""
    wanted = [part for part in ("attention", "relations") if getattr(config, part)]
    if not wanted:
        return
    output = data.task.target_of([0], data.task.train.batch([0]))
    for part in wanted:
        if not getattr(output, part):
            raise InvalidInput(
                f"{config.kind}.{part}", f"must be 0: the teacher's answers have no {part}"
            )


def _answers(teacher: Teacher, config: DistillConfig, data: StageData) -> TargetOf:
    """Asked anew where rows are read about once: keeping answers would save nothing."""
    relations, attention = config.relations > 0, config.attention > 0
    if config.epochs <= 1:
        return LiveTeacher(where_trained(teacher.model), attention=attention)
    ask = data.ask or _asked
    return ask(teacher, data.task.train, relations=relations, attention=attention)


def _asked(teacher: Teacher, rows: Rows, *, relations: bool, attention: bool) -> TargetOf:
    model = where_trained(teacher.model)
    return teacher_of(model, rows, relations=relations, attention=attention)
