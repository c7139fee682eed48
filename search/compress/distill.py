"""Distillation of one extracted subnet from the teacher, in the precision it will run in."""

from __future__ import annotations

from dataclasses import dataclass

from search.model.transformer import ElasticTransformer
from search.space import SubnetConfig
from search.training.batches import TokenRows
from search.training.evaluate import Quality, evaluate
from search.training.loop import Schedule, TrainingRun
from search.training.losses import DistillationLoss
from search.training.supernet import BatchOrder, TargetOf, distillation_losses


@dataclass(frozen=True, slots=True)
class TaskData:
    """What a student learns from and is judged by."""

    train: TokenRows
    validation: TokenRows
    target_of: TargetOf
    batch_size: int


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
    ) -> None:
        student.embeddings.word.weight.requires_grad_(False)
        self._student = student
        self._sizes = subnet.renumbered()
        self._data = data
        order = BatchOrder(data.train, data.batch_size, seed)
        self.losses_at = distillation_losses(
            student, subnet, order, data.target_of, loss or DistillationLoss()
        )
        self.run = TrainingRun(
            student,
            Schedule(learning_rate=learning_rate, total_steps=total_steps),
            seed=seed,
            precision=precision,
        )

    def quality(self) -> Quality:
        """On the validation split, at the subnet's own precision."""
        return evaluate(self._student, self._data.validation, self._sizes)
