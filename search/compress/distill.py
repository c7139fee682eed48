"""Distillation of one extracted subnet from the teacher, in the precision it will run in."""

from __future__ import annotations

from dataclasses import dataclass

from search.model.transformer import ElasticTransformer
from search.space import SubnetConfig
from search.training.distributed import training_device
from search.training.evaluate import Quality, evaluate
from search.training.loop import TrainingRun
from search.training.losses import DistillationLoss
from search.training.optimizer import OptimizerSettings, Schedule
from search.training.order import BatchOrder
from search.training.rows import Rows
from search.training.supernet import TargetOf, distillation_losses, freeze_words_


@dataclass(frozen=True, slots=True)
class TaskData:
    """What a student learns from and is judged by."""

    train: Rows
    validation: Rows
    target_of: TargetOf
    batch_size: int
    accumulation: int = 1


class Distillation:
    """A student's training: its run, the losses of its steps, and how good it is by now.

    An int8 student trains under the rounding of int8 (quantization-aware, Q8BERT, arXiv
    1910.06188), so that the exported file loses nothing more.
    """

    def __init__(
        self,
        student: ElasticTransformer,
        subnet: SubnetConfig,
        data: TaskData,
        *,
        total_steps: int,
        learning_rate: float,
        seed: int,
        precision: str,
        loss: DistillationLoss | None = None,
        settings: OptimizerSettings | None = None,
    ) -> None:
        """`loss` None: as a job weighs it by default. What it projects with is learnt too."""
        device = training_device()
        freeze_words_(student.to(device))
        self._student = student
        self._sizes = subnet.renumbered()
        self._data = data
        order = BatchOrder(
            data.train, data.batch_size, seed, accumulation=data.accumulation, device=device
        )
        loss = loss or DistillationLoss.for_shape(student.shape)
        self.losses_at = distillation_losses(student, subnet, order, data.target_of, loss)
        self.run = TrainingRun(
            student,
            Schedule(learning_rate=learning_rate, total_steps=total_steps),
            seed=seed,
            precision=precision,
            settings=settings,
            beside=loss.match.projection,
        )

    def quality(self) -> Quality:
        """On the validation split, at the subnet's own precision."""
        return evaluate(self._student, self._data.validation, self._sizes)
