"""A supernet of MiniLM on the demo's movie sentences, as a job trains one, for any space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import MINILM
from examples.movie_reviews.prepare import model_folder, prepare_data
from search.data.dataset import read_dataset
from search.model.importing import import_model
from search.model.reorder import measure_importance, rank_layers, reorder_
from search.model.transformer import ElasticTransformer
from search.space import SearchSpace, SubnetConfig
from search.training.encoding import encode_splits
from search.training.evaluate import evaluate
from search.training.loop import LossesAt, TrainingRun, load_weights_, save_weights
from search.training.losses import DistillationLoss
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.rows import Rows
from search.training.sampling import Sampling, SubnetSampler
from search.training.supernet import (
    TargetOf,
    finetuning_losses,
    freeze_words_,
    supernet_losses,
)
from search.training.tasks import task_of
from search.training.teacher import TeacherOutputs
from search.training.together import divergences

SEED = 0
MAX_SEQ_LEN = 64
BATCH_SIZE = 32
LEARNING_RATE = 5e-5
IMPORTANCE_BATCHES = 12
RANKING_ROWS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class MovieSupernet:
    """`teacher` is the fine-tuned model, its units sorted; `space` has its layers ranked."""

    model: ElasticTransformer
    teacher: ElasticTransformer
    space: SearchSpace
    target_of: TargetOf


def read_rows(state: Path) -> Mapping[str, Rows]:
    """Every split."""
    data = read_dataset(prepare_data(state))
    splits = data.split(SEED)
    return dict(encode_splits(data, splits, model_folder(), MINILM, max_seq_len=MAX_SEQ_LEN))


def trained(
    state: Path,
    rows: Mapping[str, Rows],
    space: SearchSpace,
    *,
    teacher_epochs: float,
    supernet_epochs: float,
) -> MovieSupernet:
    """Trains, or loads what an earlier run left in `state`."""
    train = rows["train"]
    teacher = import_model(model_folder(), MINILM, SEED)
    order = BatchOrder(train, BATCH_SIZE, SEED)
    losses_at = finetuning_losses(teacher, order)
    _train(state / "teacher.safetensors", teacher, losses_at, order, teacher_epochs, LEARNING_RATE)
    space = space.with_layer_order(_reorder_(teacher, order, rows["search"].spread(RANKING_ROWS)))
    print(f"layers from the most to the least important: {space.layer_order}", flush=True)
    target_of = TeacherOutputs(teacher, train, tuple(range(MINILM.num_layers)))
    supernet = import_model(model_folder(), MINILM, SEED)
    supernet.load_state_dict(teacher.state_dict())
    freeze_words_(supernet)
    order = BatchOrder(train, BATCH_SIZE, SEED + 1)
    total_steps = round(supernet_epochs * order.steps_per_epoch)
    sampler = SubnetSampler(space, Sampling(), total_steps=total_steps, seed=SEED)
    loss = DistillationLoss.for_shape(MINILM)
    losses_at = supernet_losses(supernet, order, sampler, target_of, loss)
    path = state / "supernet.safetensors"
    _train(path, supernet, losses_at, order, supernet_epochs, 2 * LEARNING_RATE)
    for name, subnet in (("largest", space.largest), ("smallest", space.smallest)):
        quality = evaluate(supernet, rows["search"], subnet.with_precision("fp32")).value
        print(f"{name} subnet {quality:.1%}", flush=True)
    return MovieSupernet(model=supernet, teacher=teacher, space=space, target_of=target_of)


def _reorder_(teacher: ElasticTransformer, order: BatchOrder, rows: Rows) -> tuple[int, ...]:
    """Sorts heads and neurons by importance; the layers from the most important on."""
    batches = (order[step][1:] for step in range(IMPORTANCE_BATCHES))
    importance = measure_importance(teacher, batches, task_of(MINILM).loss)
    reorder_(teacher, importance)
    return rank_layers(lambda s: divergences(teacher, rows, s), SubnetConfig.full(MINILM))


def _train(
    path: Path,
    model: ElasticTransformer,
    losses_at: LossesAt,
    order: BatchOrder,
    epochs: float,
    learning_rate: float,
) -> None:
    if path.is_file():
        load_weights_(model, path)
        return
    schedule = Schedule(
        learning_rate=learning_rate, total_steps=round(epochs * order.steps_per_epoch)
    )
    run = TrainingRun(model, schedule, seed=SEED)

    def report() -> bool:
        if run.step % 50 == 0:
            print(f"{path.stem}: step {run.step} of {schedule.total_steps}", flush=True)
        return False

    run.advance(losses_at, should_stop=report)
    save_weights(model, path)
