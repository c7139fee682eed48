"""Elastic training: every subnet of the space learns from the teacher."""

from __future__ import annotations

from search.model.transformer import ElasticTransformer
from search.training.evaluate import evaluate
from search.training.loop import TrainingRun, save_weights
from search.training.supernet import BatchOrder, supernet_losses
from service.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.data import load_network, load_rows, teacher_outputs
from workers.steps.state import State
from workers.steps.training import num_steps, run_slice, schedule_for

CONVERGENCE_ROWS = 256


def run(ctx: JobContext) -> StepResult:
    ctx.stage("supernet")
    state = State.parse(ctx.input)
    training = ctx.spec.training
    rows = load_rows(ctx, state.blobs.train)
    order = BatchOrder(rows, training.batch_size, ctx.seed + 1)
    model = load_network(ctx, state, state.blobs.teacher)
    model.embeddings.word.weight.requires_grad_(False)
    total_steps = num_steps(training.supernet_epochs, order.steps_per_epoch)
    learner = TrainingRun(
        model,
        schedule_for(training, total_steps, factor=2.0),
        seed=ctx.seed + 1,
        precision=state.training_precision,
    )
    losses_at = supernet_losses(
        model, teacher_outputs(ctx, state), order, state.search_space, seed=ctx.seed
    )
    checkpoint = run_slice(ctx, learner, losses_at, state.checkpoint)
    point = _convergence(ctx, state, model, learner.step)
    state = state.updated(checkpoint=checkpoint, convergence=(*state.convergence, point))
    if not learner.is_finished:
        return StepResult(next=NewStep(kind="supernet", input=state.dump()))
    path = ctx.scratch / "supernet.safetensors"
    save_weights(model, path)
    state = state.updated(blobs=state.blobs.updated(supernet=ctx.put_blob(path)))
    return StepResult(next=NewStep(kind="search", input=state.dump()))


def _convergence(
    ctx: JobContext, state: State, model: ElasticTransformer, step: int
) -> dict[str, float]:
    """Largest and smallest subnet on the validation split: the sign of a trained supernet."""
    rows = load_rows(ctx, state.blobs.validation).spread(CONVERGENCE_ROWS)
    space = state.search_space
    largest = evaluate(model, rows, space.largest.with_precision("fp32")).value
    smallest = evaluate(model, rows, space.smallest.with_precision("fp32")).value
    point = {"step": step, "largest": largest, "smallest": smallest}
    ctx.event("convergence", f"largest subnet {largest:.1%}, smallest {smallest:.1%}", point)
    return point
