"""Race a target's best candidates after a short distillation, since ranks change by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from search.choosing import believed_qualities, shortlist
from search.compress.distill import Distillation
from search.model.extract import extract
from search.model.transformer import ElasticTransformer
from search.space import SubnetConfig
from search.training.evaluate import Quality, evaluate_rows, quality_of
from search.training.loop import save_weights
from search.training.tasks import joined
from service.jobs.evaluations import Evaluation
from service.steps.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.data import load_network, load_rows, set_threads, task_data
from workers.steps.latencies import Latencies
from workers.steps.state import StageRecord, State
from workers.steps.training import loss_of, settings_of, without_checkpoint


@dataclass(frozen=True, slots=True)
class Choice:
    """A network that is predicted to keep a target, and the profile that it runs in.

    `believed_quality` is what all evaluations tell of it, see `search.choosing`.
    """

    evaluation: Evaluation
    believed_quality: float
    predicted_ms: float
    profile: int

    @property
    def subnet(self) -> SubnetConfig:
        return SubnetConfig.from_dict(self.evaluation.subnet)


@dataclass(frozen=True, slots=True)
class Raced:
    """After its short distillation.

    `quality` is that on the validation split, which later stages compare theirs with; `chosen_by`
    that on every row that no weight has learnt from, of which less is luck.
    """

    candidate: Choice
    model: ElasticTransformer
    quality: Quality
    chosen_by: Quality


def run(ctx: JobContext) -> StepResult:
    ctx.stage("finish")
    set_threads(ctx)
    state = without_checkpoint(ctx, State.parse(ctx.input))
    candidates = choose_candidates(ctx, state)
    if not candidates:
        return _give_up(ctx, state)
    raced = list(_race(ctx, state, candidates))
    winner = max(raced, key=lambda r: (r.chosen_by.value, -r.chosen_by.loss))
    chosen = winner.candidate
    path = ctx.scratch / "student.safetensors"
    save_weights(winner.model, path)
    target = state.target.updated(
        subnet=chosen.subnet.to_dict(),
        profile=chosen.profile,
        predicted_ms=chosen.predicted_ms,
        weights=ctx.put_blob(path),
        stages=(
            StageRecord(
                stage="search",
                quality=chosen.evaluation.metrics["quality"],
                latency_ms=chosen.predicted_ms,
                note=f"found by {chosen.evaluation.source}; inherited weights, search split",
            ),
            StageRecord(
                stage="shortlist",
                quality=winner.quality.value,
                latency_ms=chosen.predicted_ms,
                note=f"best of {len(raced)} after {ctx.spec.training.shortlist_steps} steps",
            ),
        ),
    )
    _announce(ctx, state, raced, winner)
    state = state.with_target(target)
    return StepResult(next=NewStep(kind="distill", input=state.dump()))


def choose_candidates(ctx: JobContext, state: State) -> list[Choice]:
    """The evaluated networks that keep the bound and are believed to be most accurate, of several
    depths.

    Those of the random baseline count too: they have been paid for.

    The upper end of the interval counts, by the predictor as it is now: after a repair it has
    seen the measurement that missed. Where intervals are too wide for any (a noisy device), the
    expected latency counts; the measurement of the exported file decides in the end.
    """
    latencies = Latencies.of(ctx, state)
    target = state.target
    known = _distinct(ctx)
    believed = _believed(state, known)
    evaluations = [e for e in known if e.fingerprint not in target.rejected]
    if not evaluations:
        return []
    subnets = [SubnetConfig.from_dict(e.subnet) for e in evaluations]
    estimate = latencies.estimate(latencies.promise_of(state.current_target), subnets)
    for latency_ms in (estimate.upper_ms, estimate.mean_ms):
        within = [
            Choice(
                evaluation,
                believed[evaluation.fingerprint],
                float(estimate.mean_ms[place]),
                int(estimate.profile[place]),
            )
            for place, evaluation in enumerate(evaluations)
            if latency_ms[place] <= target.bound_ms
        ]
        if within:
            break
    within.sort(key=_preference)
    places = shortlist(
        [choice.subnet for choice in within],
        [choice.believed_quality for choice in within],
        ctx.spec.training.shortlist_size,
    )
    return [within[place] for place in places]


def _distinct(ctx: JobContext) -> list[Evaluation]:
    """Every network once, as it was looked at most closely."""
    found: dict[str, Evaluation] = {}
    for evaluation in sorted(ctx.evaluations(), key=lambda e: -e.metrics["num_rows"]):
        found.setdefault(evaluation.fingerprint, evaluation)
    return list(found.values())


def _believed(state: State, evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """Quality of every network by its fingerprint; one that was given up early is taken for what
    it was given up at."""
    own = {e.fingerprint: float(e.metrics["quality"]) for e in evaluations}
    num_rows = max((e.metrics["num_rows"] for e in evaluations), default=0)
    whole = [e for e in evaluations if e.metrics["num_rows"] == num_rows]
    believed = believed_qualities(
        state.search_space,
        [SubnetConfig.from_dict(e.subnet) for e in whole],
        [own[e.fingerprint] for e in whole],
    )
    return own | {e.fingerprint: float(q) for e, q in zip(whole, believed, strict=True)}


def _preference(choice: Choice) -> tuple[float, float, float]:
    return (-choice.believed_quality, choice.evaluation.metrics["loss"], choice.predicted_ms)


def _race(ctx: JobContext, state: State, candidates: list[Choice]) -> Iterator[Raced]:
    supernet = load_network(ctx, state, state.blobs.supernet)
    data = task_data(ctx, state)
    unseen = (data.validation, load_rows(ctx, state.blobs.search))
    for candidate in candidates:
        ctx.check_abort()
        subnet = candidate.subnet
        student = extract(supernet, subnet)
        distillation = Distillation(
            student,
            subnet,
            data,
            total_steps=ctx.spec.training.shortlist_steps,
            learning_rate=2 * ctx.spec.training.learning_rate,
            seed=ctx.seed + 2,
            precision=state.training_precision,
            loss=loss_of(ctx.spec.training, state.model_shape),
            settings=settings_of(ctx.spec.training, state.model_shape),
        )
        distillation.run.advance(distillation.losses_at, should_stop=ctx.should_abort)
        ctx.check_abort()
        scores = [evaluate_rows(student, rows, subnet.renumbered()) for rows in unseen]
        quality, chosen_by = (
            quality_of(found, state.model_shape) for found in (scores[0], joined(scores))
        )
        yield Raced(candidate, student, quality, chosen_by)


def _give_up(ctx: JobContext, state: State) -> StepResult:
    """No evaluated network keeps the bound: the target fails, with what came closest."""
    index = state.current_target
    ctx.event(
        "target",
        f"target {index}: no candidate is predicted to keep {state.target.bound_ms:.3f} ms",
        {"target": index, "bound_ms": state.target.bound_ms},
        level="warning",
    )
    state = state.with_target(state.target.updated(is_hopeless=True))
    return StepResult(next=next_target(state))


def next_target(state: State) -> NewStep:
    """Go on with the next target that needs a network, or export them all."""
    for index in range(state.current_target + 1, len(state.targets)):
        if state.targets[index].needs_network:
            state = state.updated(current_target=index)
            return NewStep(kind="shortlist", input=state.dump())
    return NewStep(kind="package", input=state.dump())


def _announce(ctx: JobContext, state: State, raced: list[Raced], winner: Raced) -> None:
    index = state.current_target
    ctx.event(
        "shortlist",
        f"target {index}: {state.task.show(winner.quality.value)} after a short distillation, "
        f"predicted {winner.candidate.predicted_ms:.2f} ms",
        {
            "target": index,
            "raced": [
                {
                    "fingerprint": r.candidate.subnet.fingerprint,
                    "quality_before": r.candidate.evaluation.metrics["quality"],
                    "quality_believed": r.candidate.believed_quality,
                    "quality": r.quality.value,
                    "predicted_ms": r.candidate.predicted_ms,
                }
                for r in raced
            ],
        },
    )
