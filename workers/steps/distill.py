"""Distil a target's network fully, in slices; kept only if it got better by it."""

from __future__ import annotations

import math

from search.compress.distill import Distillation
from search.costs import flops
from search.space import SubnetConfig
from search.training.loop import save_weights
from service.jobs.job_spec import TrainingSpec
from service.steps.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.data import load_network, task_data
from workers.steps.shortlist import next_target
from workers.steps.state import StageRecord, State
from workers.steps.training import loss_of, num_steps, run_slice, settings_of
from workers.steps.unsearched import prefer_unsearched


def run(ctx: JobContext) -> StepResult:
    ctx.stage("finish")
    state = State.parse(ctx.input)
    target, training = state.target, ctx.spec.training
    data = task_data(ctx, state)
    student = load_network(ctx, state, target.weights, target.config)
    epochs = num_epochs(training, state, target.config)
    steps_per_epoch = math.ceil(len(data.train) / data.batch_size)
    distillation = Distillation(
        student,
        target.config,
        data,
        total_steps=num_steps(epochs, steps_per_epoch),
        learning_rate=4 * training.learning_rate,
        seed=ctx.seed + 3 + target.repairs,
        precision=state.training_precision,
        loss=loss_of(training, state.model_shape),
        settings=settings_of(training, state.model_shape),
    )
    before = target.quality
    checkpoint = run_slice(ctx, distillation.run, distillation.losses_at, state.checkpoint)
    if not distillation.run.is_finished:
        state = state.updated(checkpoint=checkpoint)
        return StepResult(next=NewStep(kind="distill", input=state.dump()))
    quality = distillation.quality().value
    is_better = quality >= before
    record = StageRecord(
        stage="distill",
        quality=quality,
        latency_ms=target.predicted_ms,
        kept=is_better,
        note=f"{epochs:.1f} epochs from the fine-tuned model",
    )
    ctx.event(
        "distilled",
        f"target {state.current_target}: {state.task.show(before)} -> {state.task.show(quality)}",
        {"target": state.current_target, "before": before, "quality": quality},
    )
    weights = target.weights
    if is_better:
        path = ctx.scratch / "student.safetensors"
        save_weights(student, path)
        weights = ctx.put_blob(path)
    state = state.with_target(target.with_stage(record, weights=weights))
    state = prefer_unsearched(ctx, state)
    state = state.updated(checkpoint=checkpoint)
    if ctx.spec.compress.stages:
        return StepResult(next=NewStep(kind="compress", input=state.dump()))
    return StepResult(next=next_target(state))


def num_epochs(training: TrainingSpec, state: State, subnet: SubnetConfig) -> float:
    """As many as cost what `distill_epochs` of the unsearched model would."""
    shape, seq_len = state.model_shape, training.max_seq_len
    full = flops(shape, SubnetConfig.full(shape), seq_len=seq_len)
    share = flops(shape, subnet, seq_len=seq_len) / full
    return min(training.distill_epochs / share, training.max_epochs)
