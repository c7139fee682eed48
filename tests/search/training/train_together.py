"""What each process of `test_distributed` runs: a short supernet training, written by the first.

Usage: python -m torch.distributed.run ... -m tests.search.training.train_together FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search.errors import TrainingDiverged
from search.training.distributed import ALONE, Group, joined_group
from search.training.loop import LossesAt, TrainingRun, save_weights
from search.training.losses import DistillationLoss
from search.training.optimizer import OptimizerSettings, Schedule
from search.training.order import BatchOrder
from search.training.sampling import Sampling, SubnetSampler
from search.training.supernet import supernet_losses
from search.training.teacher import LiveTeacher
from tests.search.small import SHAPE, SPACE, network, task

TOTAL_STEPS = 6
# 33 rows in batches of 16: the last one of an epoch has a single row, one process nothing to do.
NUM_ROWS, BATCH_SIZE = 33, 16
CPU = torch.device("cpu")


def begun(group: Group = ALONE, *, accumulation: int = 1) -> tuple[TrainingRun, LossesAt]:
    model = network(1).train()
    model.dropout = 0.0  # processes draw their own masks
    # Strategy `uniform`: whole layers are without a gradient in some steps.
    sampling = Sampling(strategy="uniform", num_random=2)
    sampler = SubnetSampler(SPACE, sampling, total_steps=TOTAL_STEPS, seed=3)
    run = TrainingRun(
        model,
        Schedule(learning_rate=1e-2, total_steps=TOTAL_STEPS),
        seed=3,
        # A key's bias has no gradient but rounding, which AdamW would blow up to a whole step.
        settings=OptimizerSettings(eps=1e-3),
        group=group,
    )
    order = BatchOrder(task(NUM_ROWS), BATCH_SIZE, 3, accumulation=accumulation, group=group)
    loss = DistillationLoss.for_shape(SHAPE, relations=0.5)
    return run, supernet_losses(model, order, sampler, LiveTeacher(network()), loss)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined_group(CPU) as group:
        facts: dict[str, Any] = {"size": group.size}
        run, losses_at = begun(group, accumulation=2)
        facts["loss"] = run.advance(losses_at, should_stop=lambda: False)
        if group.is_first:
            save_weights(run.model, folder / "together.safetensors")
        facts["stopped_at"] = _stopped_at(group)
        facts["diverged"] = _diverged(group)
        (folder / f"facts-{group.rank}.json").write_text(json.dumps(facts))


def _stopped_at(group: Group) -> int:
    """The last process wants to stop after the third step, the others never."""
    run, losses_at = begun(group)
    run.advance(losses_at, should_stop=lambda: group.rank == group.size - 1 and run.step == 3)
    return run.step


def _diverged(group: Group) -> str:
    """Only the last process meets a loss that is no number."""
    run, losses_at = begun(group)

    def breaking(step: int) -> Iterator[Tensor]:
        for loss in losses_at(step):
            yield loss * float("nan") if group.rank == group.size - 1 and step == 1 else loss

    try:
        run.advance(breaking, should_stop=lambda: False)
    except TrainingDiverged as error:
        return str(error)
    return "went on"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
