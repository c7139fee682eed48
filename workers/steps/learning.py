"""Learning how fast a device runs the networks of a space: what search jobs and onboardings share.

A session of measurements after another, until intervals near the budgets are narrow enough or the
allowance is used up. Nothing measured is lost: rows of earlier sessions join in, other devices'
predictors are offered as sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from predictors.device import Device
from predictors.features import macs_per_byte
from predictors.key import PredictorKey, Quantity, predictor_key
from predictors.onboarding import OnboardingPlan, choose_networks, most_uncertain, uncertainty
from predictors.predictor import LatencyPredictor
from predictors.report import FitReport, fit_and_report
from predictors.rows import rows_of
from predictors.spec import MeasuringResult
from predictors.workload import Workload
from predictors.workload_predictor import WorkloadPredictor
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig
from service.steps.step_types import NewMeasurement, NewStep
from workers.context import JobContext

BATCH_SIZE = 8  # further networks of a session, once the first has spanned the space
MIN_OWN_ROWS = 10  # of a device itself, before it counts as learnt


@dataclass(frozen=True, kw_only=True, slots=True)
class Curriculum:
    """What is to be learnt, how exactly, and at what cost at most.

    Attributes:
        num_networks: of the first session, over all precisions.
        max_networks: in all, for each precision.
        tolerance: half-width of the interval near the budgets that is narrow enough.
    """

    device_id: str
    shape: ModelShape
    space: SearchSpace
    workload: Workload
    num_networks: int
    num_holdout: int
    max_networks: int
    max_seconds: float
    tolerance: float
    rounds: int
    repeats: int
    seed: int
    agent_timeout_s: float | None = None

    def first_session(self, then: NewStep, *, seed: int) -> NewMeasurement:
        plan = choose_networks(
            self.space,
            self.shape,
            self.workload,
            num_networks=min(self.num_networks, self.max_networks * len(self.space.precision)),
            num_holdout=self.num_holdout,
            seed=self.seed,
        )
        return self.session(plan, then, seed=seed)

    def next_session(
        self, networks: Sequence[SubnetConfig], then: NewStep, *, seed: int
    ) -> NewMeasurement:
        plan = OnboardingPlan(training=tuple(networks), holdout=())
        return self.session(plan, then, seed=seed)

    def session(self, plan: OnboardingPlan, then: NewStep, *, seed: int) -> NewMeasurement:
        spec = plan.to_spec(
            self.shape, self.workload, rounds=self.rounds, repeats=self.repeats, seed=seed
        )
        return NewMeasurement(
            device_id=self.device_id,
            spec=spec.to_dict(),
            then=then,
            purposes=plan.purposes(),
            agent_timeout_s=self.agent_timeout_s,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    predictor: WorkloadPredictor
    report: FitReport
    num_measured: int

    def interval(self, space: SearchSpace, budgets_ms: Sequence[float]) -> float:
        """Half-width, as a share, where it matters and is widest."""
        return uncertainty(self.predictor, space, budgets_ms)


def keys_of(
    device: Device, workload: Workload, space: SearchSpace, quantity: Quantity = "latency"
) -> dict[str, PredictorKey]:
    """Of each precision of a space, on the device as it is now."""
    return {
        precision: predictor_key(device, workload, precision, quantity)
        for precision in space.precision
    }


def learn(ctx: JobContext, curriculum: Curriculum, results: Sequence[MeasuringResult]) -> Learned:
    """Fits what `results` and all earlier sessions measured; held-out networks judge it.

    Raises:
        InvalidInput: too few networks of a precision were measured.
    """
    workload, shape = curriculum.workload, curriculum.shape
    device = Device.from_dict(ctx.device(curriculum.device_id).identity)
    keys = keys_of(device, workload, curriculum.space)
    training = [row for result in results for row in rows_of(result, workload, "n")]
    holdout = [row for result in results for row in rows_of(result, workload, "h")]
    judged = {row.subnet.renumbered() for row in holdout}
    earlier = [
        row
        for key in keys.values()
        for row in ctx.earlier_rows(curriculum.device_id, key, shape)
        if row.subnet.renumbered() not in judged
    ]
    peaks = results[-1].peaks
    predictor, report = fit_and_report(
        [*training, *earlier],
        holdout,
        keys=keys,
        shape=shape,
        workload=workload,
        macs_per_byte={precision: macs_per_byte(peaks, precision) for precision in keys},
        noise_floor=float(np.median([result.session.noise_floor for result in results])),
        sources={precision: ctx.source_predictors(key, shape) for precision, key in keys.items()},
    )
    return Learned(predictor=predictor, report=report, num_measured=len(training) + len(holdout))


def networks_to_add(
    curriculum: Curriculum, learned: Learned, budgets_ms: Sequence[float], *, elapsed_s: float
) -> tuple[SubnetConfig, ...]:
    """What to measure next; nothing once the intervals are narrow or the allowance is used up."""
    if learned.interval(curriculum.space, budgets_ms) <= curriculum.tolerance:
        return ()
    rows = learned.predictor.rows
    per_precision = max(
        sum(row.subnet.precision == precision for row in rows)
        for precision in curriculum.space.precision
    )
    room = curriculum.max_networks - per_precision
    if room < 1 or elapsed_s >= curriculum.max_seconds:
        return ()
    return most_uncertain(
        learned.predictor,
        curriculum.space,
        budgets_ms,
        [row.subnet for row in rows],
        num_networks=min(BATCH_SIZE, room),
        seed=curriculum.seed + len(rows),
    )


def stored_predictor(
    ctx: JobContext,
    curriculum: Curriculum,
    *,
    max_age_seconds: float,
    quantity: Quantity = "latency",
) -> tuple[WorkloadPredictor, dict[str, object]] | None:
    """The newest predictor with its fit report; None where there is none that young of this very
    device, runtime and size of input."""
    device = Device.from_dict(ctx.device(curriculum.device_id).identity)
    size = curriculum.workload.batch_size, curriculum.workload.seq_len
    found = []
    for key in keys_of(device, curriculum.workload, curriculum.space, quantity).values():
        stored = ctx.find_predictor(curriculum.device_id, key, curriculum.shape, max_age_seconds)
        if stored is None or _num_rows(stored[0], size) < MIN_OWN_ROWS:
            return None
        found.append(stored)
    predictor = WorkloadPredictor(curriculum.workload, [payload for payload, _ in found])
    return predictor, found[0][1]


def _num_rows(predictor: LatencyPredictor, size: tuple[int, int]) -> int:
    return sum((row.batch_size, row.seq_len) == size for row in predictor.rows)


def save(
    ctx: JobContext, device_id: str, predictor: WorkloadPredictor, fit_report: dict[str, object]
) -> dict[str, str]:
    """Each precision's predictor as the newest of its key; their ids by precision."""
    return {
        precision: ctx.save_predictor(device_id, part, fit_report)
        for precision, part in predictor.predictors.items()
    }
