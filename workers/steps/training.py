"""Training cut into steps: a slice goes on from a checkpoint and ends with the next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from search.compress.network import Memory
from search.shape import ModelShape
from search.training.distributed import training_device
from search.training.loop import LossesAt, TrainingRun
from search.training.losses import DistillationLoss
from search.training.optimizer import OptimizerSettings
from search.training.order import BatchOrder
from search.training.rows import Rows
from search.training.sampling import Sampling
from service.jobs.job_spec import TrainingSpec
from workers.context import JobContext
from workers.steps.data import set_threads
from workers.steps.state import Checkpoint, StageTraining, State


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


class SliceEnded(Exception):
    """A stage's training is to go on in another step, from `trainings`."""

    def __init__(self, trainings: tuple[StageTraining, ...]) -> None:
        super().__init__()
        self.trainings = trainings


class StageSlices:
    """Drives all training of one stage for `step_seconds` in all: an `Advance` of `StageData`.

    What a stage does between its trainings is done again in every step, and gives the same: runs
    come in the same order, and those that were finished before are loaded.

    Args:
        trainings: where the step before ended.

    Raises (when called):
        SliceEnded: the time is up.
        StepAborted: the step is to stop; its work is dropped.
    """

    def __init__(self, ctx: JobContext, trainings: Sequence[StageTraining]) -> None:
        self._ctx = ctx
        self._known = list(trainings)
        self._deadline = time.monotonic() + ctx.settings.step_seconds
        self._seen: list[StageTraining | tuple[Path, Path | None]] = []

    def __call__(self, run: TrainingRun, losses_at: LossesAt, memory: Memory | None) -> None:
        place = len(self._seen)
        known = self._known[place] if place < len(self._known) else None
        if known is not None:
            self._go_on(run, memory, known)
            if run.is_finished:
                self._seen.append(known)
                return
        run.advance(losses_at, should_stop=_until(self._ctx, run, self._deadline))
        self._ctx.check_abort()
        self._seen.append(self._written(run, memory, place))
        if not run.is_finished:
            raise SliceEnded(tuple(map(self._stored, self._seen)))

    def _go_on(self, run: TrainingRun, memory: Memory | None, known: StageTraining) -> None:
        run.load(self._ctx.blob(known.run))
        _check_room(self._ctx, known.run)
        if memory is not None and known.memory is not None:
            memory.restore(load_file(self._ctx.blob(known.memory)))

    def _written(
        self, run: TrainingRun, memory: Memory | None, place: int
    ) -> tuple[Path, Path | None]:
        run_path = self._ctx.scratch / f"training-{place}.safetensors"
        run.save(run_path)
        tensors = {} if memory is None else memory.tensors()
        if not tensors:
            return run_path, None
        memory_path = self._ctx.scratch / f"memory-{place}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, memory_path)
        return run_path, memory_path

    def _stored(self, training: StageTraining | tuple[Path, Path | None]) -> StageTraining:
        if isinstance(training, StageTraining):
            return training
        run, memory = training
        return StageTraining(
            run=self._ctx.put_blob(run),
            memory=None if memory is None else self._ctx.put_blob(memory),
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
            ctx.drop_blob(checkpoint.stale)
        run.load(ctx.blob(checkpoint.current))
        _check_room(ctx, checkpoint.current)
    run.advance(losses_at, should_stop=_stopper(ctx, run, progress))
    ctx.check_abort()
    path = ctx.scratch / "checkpoint.safetensors"
    run.save(path)
    return Checkpoint(current=ctx.put_blob(path), stale=checkpoint.current if checkpoint else None)


def without_checkpoint(ctx: JobContext, state: State) -> State:
    """Called by the step after the one that ended a run: nothing goes on from it any more."""
    if state.checkpoint is None:
        return state
    for sha256 in {state.checkpoint.current, state.checkpoint.stale} - {None}:
        ctx.drop_blob(str(sha256))
    return state.updated(checkpoint=None)


def _check_room(ctx: JobContext, checkpoint: str) -> None:
    """For the next one: as it is written, and as it is stored."""
    ctx.check_room(2 * ctx.blob(checkpoint).stat().st_size)


def _stopper(
    ctx: JobContext, run: TrainingRun, progress: tuple[int, int] | None
) -> Callable[[], bool]:
    return _until(ctx, run, time.monotonic() + ctx.settings.step_seconds, progress)


def _until(
    ctx: JobContext, run: TrainingRun, deadline: float, progress: tuple[int, int] | None = None
) -> Callable[[], bool]:
    before, total = progress or (0, run.schedule.total_steps)

    def should_stop() -> bool:
        ctx.progress(before + run.step, total, "steps")
        return ctx.should_abort() or time.monotonic() >= deadline

    return should_stop
