"""Fine-tune the unsearched model on the training split, plainly: the baseline and the teacher."""

from __future__ import annotations

from search.data.splits import SPLITS
from search.model.importing import import_model
from search.training.distributed import training_device
from search.training.encoding import with_vectors
from search.training.evaluate import evaluate
from search.training.loop import TrainingRun, save_weights
from search.training.optimizer import Schedule
from search.training.supernet import finetuning_losses
from service.steps.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.data import load_rows
from workers.steps.state import State
from workers.steps.training import num_steps, order_of, run_slice, settings_of
from workers.steps.uploads import link_upload


def run(ctx: JobContext) -> StepResult:
    ctx.stage("teacher")
    state = State.parse(ctx.input)
    if state.model_shape.task == "sentence-embedding":
        return _as_it_is(ctx, state)
    training = ctx.spec.training
    order = order_of(training, load_rows(ctx, state.blobs.train), ctx.seed)
    model = import_model(link_upload(ctx, ctx.spec.model.upload), state.model_shape, ctx.seed)
    model.to(training_device())
    total_steps = num_steps(training.teacher_epochs, order.steps_per_epoch)
    learner = TrainingRun(
        model,
        Schedule(learning_rate=training.learning_rate, total_steps=total_steps),
        seed=ctx.seed,
        precision=state.training_precision,
        settings=settings_of(training, state.model_shape),
    )
    checkpoint = run_slice(ctx, learner, finetuning_losses(model, order), state.checkpoint)
    state = state.updated(checkpoint=checkpoint)
    if not learner.is_finished:
        return StepResult(next=NewStep(kind="teacher", input=state.dump()))
    quality = evaluate(model, load_rows(ctx, state.blobs.validation)).value
    ctx.event(
        "teacher",
        f"fine-tuned: {state.task.show(quality)} on the validation split",
        {"quality": quality, "metric": state.task.metric},
    )
    path = ctx.scratch / "teacher.safetensors"
    save_weights(model, path)
    blobs = state.blobs.updated(teacher=ctx.put_blob(path))
    state = state.updated(blobs=blobs, teacher_quality=quality)
    return StepResult(next=NewStep(kind="reorder", input=state.dump()))


def _as_it_is(ctx: JobContext, state: State) -> StepResult:
    """The uploaded model teaches: its vectors are what the texts of every split are asked for."""
    model = import_model(link_upload(ctx, ctx.spec.model.upload), state.model_shape, ctx.seed)
    blobs = {}
    for name in SPLITS:
        path = ctx.scratch / f"{name}.safetensors"
        with_vectors(load_rows(ctx, getattr(state.blobs, name)), model).save(path)
        blobs[name] = ctx.put_blob(path)
    path = ctx.scratch / "teacher.safetensors"
    save_weights(model, path)
    blobs["teacher"] = ctx.put_blob(path)
    state = state.updated(blobs=state.blobs.updated(**blobs), teacher_quality=state.task.best)
    return StepResult(next=NewStep(kind="reorder", input=state.dump()))
