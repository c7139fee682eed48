"""Apply the job's recipe to a target's network: a stage takes as many steps as its training needs.

A stage that cannot be done is left out with its reason: the network that keeps the budget was
promised, not what might be made of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from search.compress.checkpoint import load_compressed, save_compressed
from search.compress.files import write_file
from search.compress.network import Compressed, StageData
from search.compress.pipeline import CompressionTarget, Figures, LatencyOf, figures_of, judged
from search.compress.recipe import StageConfig
from search.compress.stages import apply_stage
from search.compress.suitability import check_stored
from search.errors import InvalidInput, TrainingDiverged
from search.export.errors import ExportFailed
from service.steps.step_types import MAX_ATTEMPTS, NewStep, StepResult
from workers.context import JobContext
from workers.steps.data import set_threads
from workers.steps.latencies import Latencies
from workers.steps.network import (
    is_as_predicted,
    network_of,
    with_vocabulary_of,
)
from workers.steps.package import check_file, refuse_two_files
from workers.steps.shortlist import next_target
from workers.steps.sources import stage_data
from workers.steps.state import Look, Recipe, StageOutcome, StageRecord, StageTraining, State
from workers.steps.training import SliceEnded, StageSlices, without_checkpoint

# The last attempt of a step is there to give up one stage rather than the job.
MAX_TRIES = MAX_ATTEMPTS - 1
TAKEN_BACK = "taken back: no later stage made up for the quality that it cost"


def run(ctx: JobContext) -> StepResult:
    ctx.stage("finish")
    set_threads(ctx)
    state = without_checkpoint(ctx, State.parse(ctx.input))
    recipe = state.target.recipe
    if recipe is None:
        return _again(_begun(ctx, state))
    state, recipe = _tidied(ctx, state, recipe)
    stages = ctx.spec.compress.recipe.stages
    place = len(recipe.outcomes)
    if place == len(stages):
        return StepResult(next=next_target(_ended(ctx, state, recipe)))
    try:
        state, tried = _tried(ctx, state, recipe, stages[place])
    except SliceEnded as slice_:
        dropped = blobs_of(recipe.trainings) - blobs_of(slice_.trainings)
        recipe = recipe.updated(trainings=slice_.trainings, stale=tuple(sorted(dropped)))
    else:
        recipe = _settled(ctx, state, recipe, stages[place], tried)
    return _again(_with(state, recipe))


@dataclass(frozen=True, slots=True)
class Tried:
    """What a stage made of the network; or why it made nothing."""

    network: Compressed | None = None
    look: Look | None = None
    error: str = ""


# --- one stage ----------------------------------------------------------------------------------


def _begun(ctx: JobContext, state: State) -> State:
    network = network_of(ctx, state, state.target)
    state, look = _look(ctx, state, network, _data(ctx, state))
    stored = _stored(ctx, network)
    recipe = Recipe(
        winner=network.subnet.fingerprint, network=stored, look=look, good=stored, good_look=look
    )
    return _with(state, recipe)


def _tried(
    ctx: JobContext, state: State, recipe: Recipe, config: StageConfig
) -> tuple[State, Tried]:
    """Raises: SliceEnded when the stage goes on in another step."""
    if ctx.attempt > MAX_TRIES:
        return state, Tried(error=f"given up: {MAX_TRIES} tries failed or did not end in time")
    network = load_compressed(ctx.blob(recipe.network))
    try:
        _check_runtime(state, config)
        data = _data(ctx, state, config, StageSlices(ctx, recipe.trainings))
        found = apply_stage(network, config, data)
        state, look = _look(ctx, state, found, data)
    except (InvalidInput, ExportFailed, TrainingDiverged) as error:
        return state, Tried(error=getattr(error, "reason", str(error)))
    return state, Tried(found, look)


def _settled(
    ctx: JobContext, state: State, recipe: Recipe, config: StageConfig, tried: Tried
) -> Recipe:
    """With the stage kept or not, and the next one's turn."""
    place = len(recipe.outcomes)
    target = _target_of(ctx, state, recipe)
    is_kept, reason = False, tried.error
    if tried.look is not None:
        before, after = _figures(recipe.look), _figures(tried.look)
        following = ctx.spec.compress.recipe.stages[place + 1 :]
        is_kept, reason = judged(before, after, target, following)
    outcome = StageOutcome(
        stage=config.to_dict(),
        before=recipe.look,
        after=tried.look,
        is_kept=is_kept,
        reason=reason,
    )
    _tell(ctx, state, place, outcome)
    stale = blobs_of(recipe.trainings)
    recipe = recipe.updated(outcomes=(*recipe.outcomes, outcome), trainings=())
    if is_kept:
        assert tried.network is not None
        assert tried.look is not None
        stale |= {recipe.network, recipe.good}
        recipe = recipe.updated(network=_stored(ctx, tried.network), look=tried.look)
        quality = _figures(tried.look).quality
        if quality >= min(target.min_quality, _figures(recipe.good_look).quality):
            recipe = recipe.updated(
                good=recipe.network, good_look=recipe.look, good_stages=place + 1
            )
    return recipe.updated(stale=tuple(sorted(stale - {recipe.network, recipe.good})))


def _ended(ctx: JobContext, state: State, recipe: Recipe) -> State:
    """The target with the last network that is good enough, and a record of each stage."""
    outcomes = tuple(
        outcome.updated(is_kept=False, reason=TAKEN_BACK)
        if outcome.is_kept and place >= recipe.good_stages
        else outcome
        for place, outcome in enumerate(recipe.outcomes)
    )
    recipe = recipe.updated(network=recipe.good, look=recipe.good_look, outcomes=outcomes)
    subnet = load_compressed(ctx.blob(recipe.network)).subnet
    figures = _figures(recipe.look)
    state = _with(state, recipe)
    target = state.target.updated(
        subnet=subnet.to_dict(),
        predicted_ms=figures.latency_ms or state.target.predicted_ms,
        stages=(*state.target.stages, *map(_record, outcomes)),
    )
    return state.with_target(target)


def _record(outcome: StageOutcome) -> StageRecord:
    figures = _figures(outcome.after or outcome.before)
    return StageRecord(
        stage=outcome.stage["kind"],
        quality=figures.quality,
        latency_ms=figures.latency_ms,
        size_bytes=figures.size_bytes,
        kept=outcome.is_kept,
        note=outcome.reason,
    )


# --- what a stage is given and judged by --------------------------------------------------------


def _data(
    ctx: JobContext,
    state: State,
    config: StageConfig | None = None,
    advance: StageSlices | None = None,
) -> StageData:
    target = state.target
    assert target.profile is not None
    data = stage_data(
        ctx,
        state,
        config,
        seq_len=state.profiles[target.profile].target_workload.seq_len,
        seed=ctx.seed + 4 + target.repairs,
    )
    return data if advance is None else replace(data, advance=advance)


def _look(
    ctx: JobContext, state: State, network: Compressed, data: StageData
) -> tuple[State, Look]:
    """Raises: ExportFailed when the network has no file, or one that answers otherwise."""
    figures = figures_of(network, data, _latency_of(ctx, state))
    ctx.check_abort()
    path = write_file(network, ctx.scratch / "stage.onnx")
    refuse_two_files(path)
    check_file(ctx, state, network, path)
    look = Look(figures=figures.to_dict(), file_bytes=path.stat().st_size)
    if ctx.spec.robustness.rows == 0:
        return state, look
    file = ctx.put_blob(path)
    return with_vocabulary_of(ctx, state, network, file), look.updated(file=file)


def _latency_of(ctx: JobContext, state: State) -> LatencyOf:
    profile = state.target.profile
    assert profile is not None
    predictor = Latencies.of(ctx, state).predictor(profile)
    statistic = ctx.spec.targets[state.current_target].statistic

    def latency_ms(network: Compressed) -> float | None:
        if not is_as_predicted(state.model_shape, network):
            return None
        return float(predictor.predict([network.subnet], statistic).mean_ms[0])

    return latency_ms


def _check_runtime(state: State, config: StageConfig) -> None:
    """A target whose runtime is open may have come to one that the recipe does not suit."""
    assert state.target.profile is not None
    workload = state.profiles[state.target.profile].target_workload
    check_stored([config], {workload.runtime: workload.precisions}, "the network")


def _target_of(ctx: JobContext, state: State, recipe: Recipe) -> CompressionTarget:
    spec = ctx.spec.compress
    first = recipe.outcomes[0].before if recipe.outcomes else recipe.look
    floor = _figures(first).quality - spec.max_loss
    asked = ctx.spec.targets[state.current_target].min_quality
    return CompressionTarget(
        cost=spec.cost,
        min_quality=floor if asked is None else max(floor, asked),
        max_latency_ms=state.target.bound_ms,
    )


def _figures(look: Look) -> Figures:
    return Figures(**look.figures)


# --- blobs and steps ----------------------------------------------------------------------------


def blobs_of(trainings: Iterable[StageTraining]) -> set[str]:
    return {blob for training in trainings for blob in (training.run, training.memory) if blob}


def _stored(ctx: JobContext, network: Compressed) -> str:
    path = ctx.scratch / "compressed.safetensors"
    save_compressed(network, path)
    return ctx.put_blob(path)


def _tidied(ctx: JobContext, state: State, recipe: Recipe) -> tuple[State, Recipe]:
    """Without the blobs that the step before has left behind; targets may share networks."""
    recipes = [target.recipe for target in state.targets if target.recipe is not None]
    used = {blob for other in recipes for blob in (other.network, other.good)}
    for sha256 in set(recipe.stale) - used:
        ctx.drop_blob(sha256)
    recipe = recipe.updated(stale=())
    return _with(state, recipe), recipe


def _with(state: State, recipe: Recipe) -> State:
    return state.with_target(state.target.updated(recipe=recipe))


def _again(state: State) -> StepResult:
    return StepResult(next=NewStep(kind="compress", input=state.dump()))


def _tell(ctx: JobContext, state: State, place: int, outcome: StageOutcome) -> None:
    verdict = "kept" if outcome.is_kept else "not kept"
    ctx.event(
        "compressed",
        f"target {state.current_target}, stage {place}: {outcome.stage['kind']} {verdict}: "
        f"{outcome.reason}",
        {
            "target": state.current_target,
            "stage": place,
            "kind": outcome.stage["kind"],
            "is_kept": outcome.is_kept,
            "before": outcome.before.figures,
            "after": outcome.after.figures if outcome.after else None,
        },
        level="info" if outcome.after else "warning",
    )
