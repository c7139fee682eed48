"""Distillation without labels: a student learns how its teacher relates the tokens of any text.

(MiniLMv2, arXiv 2012.15828, section 3; what MobileBERT, arXiv 2004.02984, does by attention maps.)
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from search.compress.configs import DistillRelationsConfig
from search.compress.network import Compressed, StageData, copied
from search.compress.suitability import check_suits
from search.compress.training import even_layers, where_trained
from search.errors import InvalidInput
from search.model.transformer import Batch, ElasticTransformer, Output
from search.shape import ModelShape
from search.space import SubnetConfig
from search.training.distributed import training_device
from search.training.loop import TrainingRun
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.rows import Rows
from search.training.supernet import freeze_words_, relation_losses
from search.training.teacher import readable


def distill_relations(
    network: Compressed, config: DistillRelationsConfig, data: StageData
) -> Compressed:
    """A student of the sizes that the config names, a prefix of the network, after learning the
    relations of one of the teacher's layers.

    Args:
        data: in the ids of the original's vocabulary.

    Raises:
        InvalidInput: no texts without labels; a teacher that there is not, or that reads other
            input; sizes or a layer that the network or the teacher does not have.
    """
    if data.unlabelled is None or not len(data.unlabelled):
        raise InvalidInput("data.unlabelled", f"must have rows, for {config.kind}")
    asked = _teacher_of(network, config, data, data.unlabelled)
    sizes = student_sizes(network.model.shape, network.subnet.renumbered(), config)
    _check_relation_heads(config, network.model.shape, sizes, asked.model)
    if sizes == network.subnet.renumbered():
        student = replace(network, model=copied(network.model))
        freeze_words_(student.model)
    else:
        # Another width wants other words: their table learns too.
        student = network.smaller(sizes)
    _train_(student.model, config, _read_by(network, config, data, asked))
    return student


def student_sizes(
    shape: ModelShape, sizes: SubnetConfig, config: DistillRelationsConfig
) -> SubnetConfig:
    """`sizes` made as small as the config asks for, in every layer.

    Raises:
        InvalidInput: the network is smaller than that, or cannot be cut so.
    """
    for name, limit in (
        ("num_layers", sizes.num_layers),
        ("embed_dim", sizes.width_in(shape)),
        ("num_heads", max(sizes.num_heads)),
        ("ffn_dim", max(sizes.ffn_dim)),
    ):
        config.require(getattr(config, name) <= limit, name, f"at most {limit}, the network's")
    check_suits(config, shape)
    kept = even_layers(config.num_layers or sizes.num_layers, sizes.num_layers)
    sizes = sizes.keeping(kept)
    return replace(
        sizes,
        num_heads=tuple(min(config.num_heads or n, n) for n in sizes.num_heads),
        ffn_dim=tuple(min(config.ffn_dim or n, n) for n in sizes.ffn_dim),
        embed_dim=config.embed_dim or sizes.embed_dim,
    )


class RelationsOfLayer:
    """Asks a teacher for one layer's queries, keys and values, and runs none beyond it."""

    def __init__(self, model: ElasticTransformer, layer: int) -> None:
        """`layer` counts from 1."""
        self.model = where_trained(model).eval()
        self._num_layers = layer

    @torch.no_grad()
    def __call__(self, places: list[int], batch: Batch) -> Output:
        del places
        x_BTD, shared = self.model.begin(readable(self.model, batch))
        relations: tuple[Tensor, ...] = ()
        for place in range(self._num_layers):
            x_BTD, relations = self.model.run_layer(place, x_BTD, shared)
        return Output(torch.empty(0), (), relations).to(batch.inputs.device)


def _teacher_of(
    network: Compressed, config: DistillRelationsConfig, data: StageData, rows: Rows
) -> RelationsOfLayer:
    model = network.model
    if config.teacher:
        teacher = data.teacher_named(f"{config.kind}.teacher", config.teacher)
        teacher.check(config.teacher, network.model.shape, rows, data.tokenizer)
        model = teacher.model
    depth = model.sizes.num_layers
    config.require(config.teacher_layer <= depth, "teacher_layer", f"at most {depth}, the last")
    return RelationsOfLayer(model, config.teacher_layer or depth)


def _check_relation_heads(
    config: DistillRelationsConfig,
    shape: ModelShape,
    sizes: SubnetConfig,
    teacher: ElasticTransformer,
) -> None:
    """Raises: InvalidInput where features cannot be cut into as many parts."""
    layer = (config.teacher_layer or teacher.sizes.num_layers) - 1
    counts = {
        "student": (shape, sizes.num_heads[-1]),
        "teacher": (teacher.shape, teacher.sizes.num_heads[layer]),
    }
    for whose, (of, num_heads) in counts.items():
        keys = num_heads // of.queries_per_group * of.head_dim
        fits = not config.relation_heads or keys % config.relation_heads == 0
        config.require(fits, "relation_heads", f"a divisor of the {whose}'s {keys} features")


def _read_by(
    network: Compressed, config: DistillRelationsConfig, data: StageData, asked: RelationsOfLayer
) -> StageData:
    """The rows without labels in the network's ids, with the relations that `asked` tells.

    A named teacher reads the original's ids, the network as a teacher its own.
    """
    assert data.unlabelled is not None
    data = replace(data, task=replace(data.task, train=data.unlabelled, target_of=asked))
    data = data.read_by(network)
    return data if config.teacher else replace(data, task=replace(data.task, target_of=asked))


def _train_(model: ElasticTransformer, config: DistillRelationsConfig, data: StageData) -> None:
    task, device = data.task, training_device()
    order = BatchOrder(
        task.train, task.batch_size, data.seed, accumulation=task.accumulation, device=device
    )
    losses_at = relation_losses(
        model.to(device), order, task.target_of, relation_heads=config.relation_heads
    )
    total_steps = data.num_steps(config.epochs)
    schedule = Schedule(learning_rate=config.learning_rate, total_steps=total_steps)
    run = TrainingRun(model, schedule, seed=data.seed)
    data.advance(run, losses_at, None)
    model.cpu().eval()
