"""Predicted latencies of a job's targets, each on its own device, workload and runtime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from predictors.predictor import Statistic
from predictors.reach import check_reachable, fastest_ms, resolve_budget
from predictors.workload_predictor import WorkloadPredictor
from search.space import SearchSpace, SubnetConfig
from service.jobs.job_spec import TargetSpec
from workers.context import JobContext
from workers.steps.state import State, Target

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BestEstimate:
    """Of the fastest profile for each network; infinite where none runs its precision."""

    mean_ms: Floats
    lower_ms: Floats
    upper_ms: Floats
    profile: npt.NDArray[np.int64]

    @classmethod
    def of_none(cls, size: int) -> Self:
        mean_ms, lower_ms, upper_ms = np.full((3, size), np.inf)
        return cls(mean_ms, lower_ms, upper_ms, np.zeros(size, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Promise:
    """What targets may share: where they run, and the statistic they promise."""

    profiles: tuple[int, ...]
    statistic: Statistic


class Latencies:
    """The predictors of a job's profiles, asked for the sake of its targets."""

    def __init__(
        self,
        predictors: Sequence[WorkloadPredictor],
        profiles_of_target: Sequence[tuple[int, ...]],
        specs: Sequence[TargetSpec],
    ) -> None:
        self._predictors = tuple(predictors)
        self._promises = tuple(
            Promise(profiles, spec.statistic)
            for profiles, spec in zip(profiles_of_target, specs, strict=True)
        )

    @classmethod
    def of(cls, ctx: JobContext, state: State) -> Latencies:
        predictors = [_load(ctx, profile.predictor) for profile in state.profiles]
        return cls(predictors, state.profiles_of_target, ctx.spec.targets)

    @property
    def promises(self) -> tuple[Promise, ...]:
        """Each once: a search has as many objectives of latency."""
        return tuple(dict.fromkeys(self._promises))

    def promise_of(self, target: int) -> Promise:
        return self._promises[target]

    def predictor(self, profile: int) -> WorkloadPredictor:
        return self._predictors[profile]

    def estimate(self, promise: Promise, subnets: Sequence[SubnetConfig]) -> BestEstimate:
        best = BestEstimate.of_none(len(subnets))
        for profile in promise.profiles:
            predictor = self._predictors[profile]
            able = np.array([s.precision in predictor.precisions for s in subnets], dtype=np.bool_)
            if not able.any():
                continue
            runnable = [s for s, is_able in zip(subnets, able, strict=True) if is_able]
            found = predictor.predict(runnable, promise.statistic)
            places = np.flatnonzero(able)[found.mean_ms < best.mean_ms[able]]
            is_faster = found.mean_ms < best.mean_ms[able]
            for name in ("lower_ms", "upper_ms", "mean_ms"):
                getattr(best, name)[places] = getattr(found, name)[is_faster]
            best.profile[places] = profile
        return best


def resolve_targets(
    latencies: Latencies, specs: Sequence[TargetSpec], space: SearchSpace
) -> tuple[Target, ...]:
    """Every target with its budget in milliseconds.

    A ratio is of the unsearched model in the first runtime that the target may use.

    Raises:
        BudgetUnreachable: no network of the space keeps one of them.
    """
    targets = []
    for index, spec in enumerate(specs):
        promise = latencies.promise_of(index)
        predictors = [latencies.predictor(place) for place in promise.profiles]
        budget_ms = resolve_budget(
            predictors[0], budget_ms=spec.budget_ms, budget_ratio=spec.budget_ratio
        )
        closest_ms = min(fastest_ms(p, space, spec.statistic) for p in predictors)
        check_reachable(f"targets[{index}].{spec.budget_field}", budget_ms, closest_ms)
        targets.append(
            Target(
                profiles=promise.profiles,
                budget_ms=budget_ms,
                budget_ratio=spec.budget_ratio,
                bound_ms=budget_ms,
            )
        )
    return tuple(targets)


def _load(ctx: JobContext, predictor: str | None) -> WorkloadPredictor:
    assert predictor is not None, "onboarding has stored it"
    return WorkloadPredictor.from_json(json.loads(ctx.blob(predictor).read_text()))
