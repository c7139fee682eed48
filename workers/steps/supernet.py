"""Elastic training: every subnet of the space learns from the teacher."""

from __future__ import annotations

from search.model.transformer import ElasticTransformer
from search.training.convergence import budget_warning
from search.training.distributed import training_device
from search.training.loop import LossesAt, TrainingRun, save_weights
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.sampling import SubnetSampler
from search.training.supernet import freeze_words_, inplace_losses, supernet_losses
from service.steps.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.convergence import begin_convergence, follow_convergence
from workers.steps.data import load_network, load_rows, teacher_outputs
from workers.steps.state import State
from workers.steps.training import (
    loss_of,
    num_steps,
    order_of,
    run_slice,
    sampling_of,
    settings_of,
)


def run(ctx: JobContext) -> StepResult:
    ctx.stage("supernet")
    state = State.parse(ctx.input)
    training = ctx.spec.training
    order = order_of(training, load_rows(ctx, state.blobs.train), ctx.seed + 1)
    model = load_network(ctx, state, state.blobs.teacher).to(training_device())
    freeze_words_(model)
    total_steps = num_steps(training.supernet_epochs, order.steps_per_epoch)
    sampler = SubnetSampler(
        state.search_space, sampling_of(training), total_steps=total_steps, seed=ctx.seed
    )
    if state.checkpoint is None:
        _warn(ctx, state, total_steps)
        state = begin_convergence(ctx, state, model)
    learner = TrainingRun(
        model,
        Schedule(
            learning_rate=LEARNING_RATE_FACTOR * training.learning_rate,
            total_steps=total_steps,
            restart_at=sampler.num_width_steps,
        ),
        seed=ctx.seed + 1,
        precision=state.training_precision,
        settings=settings_of(training, state.model_shape, average_decay=training.average_decay),
    )
    losses_at = _losses(ctx, state, model, order, sampler)
    checkpoint = run_slice(ctx, learner, losses_at, state.checkpoint)
    with learner.averaged():
        state = follow_convergence(ctx, state, model, learner.step)
        state = state.updated(checkpoint=checkpoint)
        if not learner.is_finished:
            return StepResult(next=NewStep(kind="supernet", input=state.dump()))
        path = ctx.scratch / "supernet.safetensors"
        save_weights(model, path)
    state = state.updated(blobs=state.blobs.updated(supernet=ctx.put_blob(path)))
    return StepResult(next=NewStep(kind="search", input=state.dump()))


LEARNING_RATE_FACTOR = 2.0


def _losses(
    ctx: JobContext,
    state: State,
    model: ElasticTransformer,
    order: BatchOrder,
    sampler: SubnetSampler,
) -> LossesAt:
    loss = loss_of(ctx.spec.training, state.model_shape)
    if ctx.spec.training.supernet_teacher == "inplace":
        return inplace_losses(model, order, sampler, loss)
    return supernet_losses(model, order, sampler, teacher_outputs(ctx, state), loss)


def _warn(ctx: JobContext, state: State, total_steps: int) -> None:
    warning = budget_warning(state.search_space, sampling_of(ctx.spec.training), total_steps)
    if warning is not None:
        ctx.event("budget", warning, {"steps": total_steps}, level="warning")
