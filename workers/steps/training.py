"""Training cut into steps: a slice goes on from a checkpoint and ends with the next one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from search.shape import ModelShape
from search.training.distributed import training_device
from search.training.loop import LossesAt, TrainingRun
from search.training.losses import DistillationLoss
from search.training.optimizer import OptimizerSettings
from search.training.order import BatchOrder
from search.training.rows import Rows
from search.training.sampling import Sampling
from service.job_spec import TrainingSpec
from workers.context import JobContext
from workers.steps.data import set_threads
from workers.steps.state import Checkpoint


def num_steps(epochs: float, steps_per_epoch: int) -> int:
    return max(1, round(epochs * steps_per_epoch))


def order_of(training: TrainingSpec, rows: Rows, seed: int) -> BatchOrder:
    return BatchOrder(
        rows,
        training.batch_size,
        seed,
        accumulation=training.accumulation,
        device=training_device(),
    )


def sampling_of(training: TrainingSpec) -> Sampling:
    return Sampling(
        strategy=training.sampling,
        num_random=training.num_random,
        largest_every=training.largest_every,
        width_first=training.width_first,
    )


def loss_of(training: TrainingSpec, shape: ModelShape) -> DistillationLoss:
    return DistillationLoss.for_shape(shape, **training.loss.model_dump())


def settings_of(
    training: TrainingSpec, shape: ModelShape, *, average_decay: float = 0.0
) -> OptimizerSettings:
    """Of the model's kind, with the job's own values."""
    usual = OptimizerSettings.for_shape(shape)
    decay = training.weight_decay
    return replace(
        usual,
        weight_decay=usual.weight_decay if decay is None else decay,
        max_grad_norm=training.max_grad_norm,
        average_decay=average_decay,
    )


def run_slice(
    ctx: JobContext,
    run: TrainingRun,
    losses_at: LossesAt,
    checkpoint: Checkpoint | None,
    *,
    progress: tuple[int, int] | None = None,
) -> Checkpoint:
    """Train for `step_seconds` at most and store where the run got to.

    Args:
        checkpoint: where the slice before ended; None at the start of the run.
        progress: steps done before this run and steps in all of the stage, to show; None shows
            the run's own.

    Raises:
        StepAborted: the step is to stop; its work since the last checkpoint is dropped.
    """
    set_threads(ctx)
    if checkpoint is not None:
        if checkpoint.stale is not None:
            ctx.store.delete(checkpoint.stale)
        run.load(ctx.blob(checkpoint.current))
    run.advance(losses_at, should_stop=_stopper(ctx, run, progress))
    ctx.check_abort()
    path = ctx.scratch / "checkpoint.safetensors"
    run.save(path)
    return Checkpoint(current=ctx.put_blob(path), stale=checkpoint.current if checkpoint else None)


def drop_checkpoint(ctx: JobContext, checkpoint: Checkpoint | None) -> None:
    """Called by the step after the one that ended a run: nothing goes on from it any more."""
    if checkpoint is not None:
        for sha256 in {checkpoint.current, checkpoint.stale} - {None}:
            ctx.store.delete(str(sha256))


def _stopper(
    ctx: JobContext, run: TrainingRun, progress: tuple[int, int] | None
) -> Callable[[], bool]:
    deadline = time.monotonic() + ctx.settings.step_seconds
    before, total = progress or (0, run.schedule.total_steps)

    def should_stop() -> bool:
        ctx.progress(before + run.step, total, "steps")
        return ctx.should_abort() or time.monotonic() >= deadline

    return should_stop
