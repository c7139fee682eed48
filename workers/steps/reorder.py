"""Sort heads and neurons by importance, so that a subnet is a prefix; rank the layers."""

from __future__ import annotations

from collections.abc import Sequence

from search.model.reorder import measure_importance, rank_layers, reorder_
from search.space import SubnetConfig
from search.training.evaluate import few, predict
from search.training.loop import save_weights
from search.training.order import BatchOrder
from search.training.together import divergences
from service.steps.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.data import load_network, load_rows, set_threads
from workers.steps.state import State
from workers.steps.training import without_checkpoint

IMPORTANCE_BATCHES = 12
RANKING_ROWS = 256
MAX_DIFFERENCE = 1e-3


def run(ctx: JobContext) -> StepResult:
    ctx.stage("supernet")
    set_threads(ctx)
    state = without_checkpoint(ctx, State.parse(ctx.input))
    model = load_network(ctx, state, state.blobs.teacher)
    order = BatchOrder(load_rows(ctx, state.blobs.train), ctx.spec.training.batch_size, ctx.seed)
    num_batches = min(IMPORTANCE_BATCHES, order.steps_per_epoch)
    importance = measure_importance(
        model, (order[step][1:] for step in range(num_batches)), state.task.loss
    )
    rows = load_rows(ctx, state.blobs.search).spread(RANKING_ROWS)
    checked = few(rows, model.shape, RANKING_ROWS)
    before = predict(model, checked)
    reorder_(model, importance)
    difference = float((predict(model, checked) - before).abs().max())
    if difference > MAX_DIFFERENCE:
        raise RuntimeError(f"reordering changed the outputs by {difference}")

    def damages(subnets: Sequence[SubnetConfig]) -> list[float]:
        return divergences(model, rows, subnets, check_abort=ctx.check_abort)

    layer_order = rank_layers(damages, SubnetConfig.full(state.model_shape))
    ctx.event(
        "reordered",
        f"layers from the most to the least important: {list(layer_order)}",
        {"layer_order": list(layer_order), "max_difference": difference},
    )
    path = ctx.scratch / "teacher.safetensors"
    save_weights(model, path)
    state = state.updated(
        blobs=state.blobs.updated(teacher=ctx.put_blob(path)),
        space=state.search_space.with_layer_order(layer_order).to_dict(),
    )
    return StepResult(next=NewStep(kind="supernet", input=state.dump()))
