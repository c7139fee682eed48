"""How much of what pruning loses does a short distillation win back?

MiniLM is fine-tuned on the movie-review sentences, pruned to half of its FLOPs, and distilled from
itself for a tenth of the epochs that its fine-tuning took, once for each way to weigh the loss.

    python -m benchmarks.recovery [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import small_search
from benchmarks.common import MINILM, report_result
from benchmarks.movie_supernet import BATCH_SIZE, LEARNING_RATE, MAX_SEQ_LEN, SEED, read_rows
from examples.movie_reviews.prepare import model_folder
from search.compress.configs import DistillConfig, PruneConfig
from search.compress.distill import TaskData
from search.compress.network import Compressed, StageData
from search.compress.stages import apply_stage
from search.model.importing import import_model
from search.model.transformer import ElasticTransformer
from search.training.evaluate import evaluate
from search.training.loop import load_weights_, save_weights
from search.training.order import BatchOrder
from search.training.rows import Rows
from search.training.supernet import finetuning_losses
from search.training.teacher import LiveTeacher

STATE = Path(".snugnet/recovery")
TEACHER_EPOCHS = 2.0
SHARE_OF_EPOCHS = 0.1
KEEP = 0.5
BUDGET = SHARE_OF_EPOCHS * TEACHER_EPOCHS
WAYS: Mapping[str, DistillConfig] = {
    "as it is by default": DistillConfig(epochs=BUDGET),
    "default at 2e-4": DistillConfig(epochs=BUDGET, learning_rate=2e-4),
    "default at 4e-4": DistillConfig(epochs=BUDGET, learning_rate=4e-4),
    "labels alone": DistillConfig(epochs=BUDGET, soft=0, hard=1, hidden=0),
    "soft labels alone": DistillConfig(epochs=BUDGET, soft=1, hard=0, hidden=0),
    "hidden states twice": DistillConfig(epochs=BUDGET, hidden=1),
    "attention too": DistillConfig(epochs=BUDGET, attention=0.5),
    "attention instead of hidden states": DistillConfig(epochs=BUDGET, hidden=0, attention=0.5),
    "relations too": DistillConfig(epochs=BUDGET, relations=1),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.recovery", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps; keeps nothing")
    chosen = parser.parse_args(arguments)
    report_result("recovery", figures(is_quick=chosen.quick), keep=not chosen.quick)


@dataclass(frozen=True, slots=True)
class Splits:
    train: Rows
    search: Rows
    test: Rows


def figures(*, is_quick: bool) -> dict[str, Any]:
    rows = read_rows(STATE)
    splits = Splits(rows["train"], rows["search"], rows["test"])
    if is_quick:
        splits = Splits(
            rows["train"].spread(320), *(rows[n].spread(100) for n in ("search", "test"))
        )
    teacher, teacher_s = _teacher(splits.train, is_kept=not is_quick)
    task = TaskData(splits.train, splits.search, LiveTeacher(teacher, attention=True), BATCH_SIZE)
    data = StageData(task=task, seq_len=MAX_SEQ_LEN, seed=SEED)
    pruned = apply_stage(Compressed.whole(teacher), PruneConfig(keep=KEEP), data)
    before = {
        "teacher": _qualities(teacher, splits),
        "pruned": _qualities(pruned.model, splits),
    }
    return {
        "teacher_epochs": TEACHER_EPOCHS,
        "teacher_s": teacher_s,
        "distill_epochs": BUDGET,
        "flops_kept": pruned.flops(MAX_SEQ_LEN) / Compressed.whole(teacher).flops(MAX_SEQ_LEN),
        "subnet": pruned.subnet.to_dict(),
        **before,
        "ways": [
            _way(name, config, pruned, data, splits, before) for name, config in WAYS.items()
        ],
    }


def _way(
    name: str,
    config: DistillConfig,
    pruned: Compressed,
    data: StageData,
    splits: Splits,
    before: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    started = time.monotonic()
    taught = apply_stage(pruned, config, data)
    seconds = time.monotonic() - started
    after = _qualities(taught.model, splits)
    found = {
        "way": name,
        "stage": config.to_dict(),
        "seconds": seconds,
        "quality": after,
        "recovered": {
            split: recovered(before["teacher"][split], before["pruned"][split], value)
            for split, value in after.items()
        },
    }
    print(found, flush=True)
    return found


def recovered(whole: float, pruned: float, taught: float) -> float:
    """Share of the quality lost by pruning that training won back; NaN where none was lost."""
    return (taught - pruned) / (whole - pruned) if whole > pruned else float("nan")


def _qualities(model: ElasticTransformer, splits: Splits) -> dict[str, float]:
    parts = {"search": splits.search, "test": splits.test}
    return {name: evaluate(model, rows).value for name, rows in parts.items()}


def _teacher(train: Rows, *, is_kept: bool) -> tuple[ElasticTransformer, float | None]:
    """The fine-tuned model and the seconds that it took; None where an earlier run left it."""
    model = import_model(model_folder(), MINILM, SEED)
    path = STATE / "teacher.safetensors"
    if is_kept and path.is_file():
        load_weights_(model, path)
        return model.eval(), None
    started = time.monotonic()
    order = BatchOrder(train, BATCH_SIZE, SEED)
    steps = round(TEACHER_EPOCHS * order.steps_per_epoch)
    small_search.train(model, finetuning_losses(model, order), steps, LEARNING_RATE)
    if is_kept:
        save_weights(model, path)
    return model.eval(), time.monotonic() - started


if __name__ == "__main__":
    main()
