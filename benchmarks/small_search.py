"""The supernet of a small job and a search of it, in one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.whole_search import search_whole
from predictors.workload_predictor import WorkloadPredictor
from search.evolution import SearchTask
from search.model.extract import extract
from search.model.reorder import measure_importance, rank_layers, reorder_
from search.model.transformer import ElasticTransformer
from search.objectives import LATENCY, QUALITY, Floats
from search.space import SearchSpace, SubnetConfig
from search.training.evaluate import few, predict, quality_of
from search.training.loop import LossesAt, TrainingRun
from search.training.losses import DistillationLoss
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.rows import Rows
from search.training.sampling import Sampling, SubnetSampler
from search.training.supernet import TargetOf, freeze_words_, supernet_losses
from search.training.tasks import task_of
from search.training.together import divergences, evaluate_together

SEED = 0
IMPORTANCE_BATCHES = 12
RANKING_ROWS = 128


@dataclass(frozen=True, slots=True)
class Found:
    """A network that a search evaluated, with the weights that it inherits.

    Attributes:
        cost: of the search's first objective: ms as predicted, or FLOPs.
    """

    subnet: SubnetConfig
    cost: float
    quality: float


def sort_units_(
    teacher: ElasticTransformer, train: Rows, ranked: Rows, *, batch_size: int
) -> SearchSpace:
    """Sorts heads, neurons and features by importance, in place; its layers are ranked in the
    space."""
    order = BatchOrder(train, batch_size, SEED)
    count = min(IMPORTANCE_BATCHES, order.steps_per_epoch)
    batches = (order[step][1:] for step in range(count))
    checked = few(ranked, teacher.shape, RANKING_ROWS)
    before = predict(teacher, checked)
    reorder_(teacher, measure_importance(teacher, batches, task_of(teacher.shape).loss))
    assert float((predict(teacher, checked) - before).abs().max()) < 1e-3
    some = ranked.spread(RANKING_ROWS)
    full = SubnetConfig.full(teacher.shape)
    layer_order = rank_layers(lambda s: divergences(teacher, some, s), full)
    return SearchSpace.for_shape(teacher.shape).with_layer_order(layer_order)


def train_supernet(
    teacher: ElasticTransformer,
    rows: Rows,
    space: SearchSpace,
    target_of: TargetOf,
    *,
    epochs: float,
    learning_rate: float,
    batch_size: int,
) -> ElasticTransformer:
    supernet = extract(teacher, SubnetConfig.full(teacher.shape))
    freeze_words_(supernet)
    order = BatchOrder(rows, batch_size, SEED + 1)
    total = num_steps(epochs, order)
    sampler = SubnetSampler(space, Sampling(), total_steps=total, seed=SEED)
    loss = DistillationLoss.for_shape(teacher.shape)
    losses_at = supernet_losses(supernet, order, sampler, target_of, loss)
    train(supernet, losses_at, total, learning_rate)
    return supernet


def train(
    model: ElasticTransformer, losses_at: LossesAt, total_steps: int, learning_rate: float
) -> None:
    schedule = Schedule(learning_rate=learning_rate, total_steps=total_steps)
    TrainingRun(model, schedule, seed=SEED).advance(losses_at, should_stop=lambda: False)


def num_steps(epochs: float, order: BatchOrder) -> int:
    return max(1, round(epochs * order.steps_per_epoch))


def latency_task(
    space: SearchSpace, predictor: WorkloadPredictor, loosest_ms: float
) -> SearchTask:
    """Quality against predicted latency, up to a budget."""

    def known(subnets: Sequence[SubnetConfig]) -> Floats:
        return predictor.predict(subnets).mean_ms.reshape(-1, 1)

    def are_feasible(subnets: Sequence[SubnetConfig]) -> npt.NDArray[np.bool_]:
        return np.asarray(predictor.predict(subnets).mean_ms <= loosest_ms)

    return SearchTask(
        space=space, objectives=(LATENCY, QUALITY), known=known, are_feasible=are_feasible
    )


def search_networks(
    task: SearchTask,
    supernet: ElasticTransformer,
    rows: Rows,
    *,
    population: int,
    generations: int,
) -> list[Found]:
    """All that were evaluated, with their inherited weights on `rows`."""

    def qualities_of(subnets: Sequence[SubnetConfig]) -> list[float]:
        scores = evaluate_together(supernet, rows, subnets)
        return [quality_of(of_rows, supernet.shape).value for of_rows in scores]

    found = search_whole(
        task,
        "surrogate",
        qualities_of,
        population=population,
        generations=generations,
        seed=SEED,
    )
    return [Found(subnet, *record.values) for subnet, record in found]
