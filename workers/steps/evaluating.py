"""Evaluation of candidates: predicted latency and energy, and quality on the search split."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search.evolution import SearchTask
from search.genotypes import Genotype
from search.halving import Rivals
from search.objectives import Floats
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig
from search.training.judging import Judged, in_fair_order, judge
from search.training.together import by_beginning
from service.jobs.evaluations import Evaluation
from workers.context import JobContext
from workers.steps.data import load_network, load_rows, set_threads
from workers.steps.energies import Energies
from workers.steps.latencies import BestEstimate, Latencies, Promise
from workers.steps.rivals import SCORES, pack, rivals_among
from workers.steps.state import State

TOO_SLOW = 10.0  # times the loosest budget
# More at once share more of their layers, and hold back a wish to stop for longer.
GROUP_SIZE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A network to evaluate, and where among the records it belongs."""

    subnet: SubnetConfig
    index: int
    genotype: Genotype | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What an evaluation told of a network.

    Attributes:
        metrics: quality, loss and the number of rows.
        fidelity: how closely it was looked at.
        scores: as `rivals.pack` has them; None where they were not kept.
    """

    metrics: Mapping[str, float]
    fidelity: str
    scores: str | None = None


class Evaluator:
    """Evaluates subnets of a job's supernet and records them; equal ones only once."""

    def __init__(self, ctx: JobContext, state: State) -> None:
        set_threads(ctx)
        self._ctx = ctx
        self._deadline = time.monotonic() + ctx.settings.step_seconds
        self._num_recorded = 0
        self._latencies = Latencies.of(ctx, state)
        self._energies = Energies.of(ctx, state)
        self._loosest_ms = {
            promise: max(
                target.bound_ms
                for index, target in enumerate(state.targets)
                if self._latencies.promise_of(index) == promise
            )
            for promise in self._latencies.promises
        }
        # Intervals of a noisy device may be too wide for any network; then the mean has to do.
        self._trusts_mean = {
            promise: self._smallest_upper_ms(promise, state.search_space) > loosest_ms
            for promise, loosest_ms in self._loosest_ms.items()
        }
        self._supernet = load_network(ctx, state, state.blobs.supernet)
        rows = load_rows(ctx, state.blobs.search).spread(ctx.spec.search.fidelity_rows)
        self._rows = in_fair_order(rows)
        self.fidelity = f"rows={len(self._rows)}"

    @property
    def num_promises(self) -> int:
        return len(self._latencies.promises)

    def latencies_ms(self, subnets: Sequence[SubnetConfig]) -> list[Floats]:
        """Expected ones of every promise, (networks,) each.

        A precision that none of a promise's runtimes has counts as far too slow.
        """
        return [
            np.minimum(self._latencies.estimate(promise, subnets).mean_ms, TOO_SLOW * loosest_ms)
            for promise, loosest_ms in self._loosest_ms.items()
        ]

    def energies_mj(self, subnets: Sequence[SubnetConfig]) -> Floats:
        """Expected ones where the first target would run, of a job that weighs energy."""
        assert self._energies is not None, "only a job that weighs energy asks"
        best = self._latencies.estimate(self._latencies.promise_of(0), subnets)
        return self._energies.mean_mj(subnets, best.profile)

    def are_feasible(self, subnets: Sequence[SubnetConfig]) -> npt.NDArray[np.bool_]:
        """Whether the upper end of the predicted interval keeps the loosest of some promise."""
        feasible = np.zeros(len(subnets), dtype=np.bool_)
        for promise, loosest_ms in self._loosest_ms.items():
            estimate = self._latencies.estimate(promise, subnets)
            feasible |= self._trusted_ms(promise, estimate) <= loosest_ms
        return feasible

    def _trusted_ms(self, promise: Promise, estimate: BestEstimate) -> Floats:
        return estimate.mean_ms if self._trusts_mean[promise] else estimate.upper_ms

    def loosest_ratio(self, shape: ModelShape) -> float:
        """The loosest budget as a share of the latency that the unsearched model is to have."""
        full = [SubnetConfig.full(shape)]
        return max(
            loosest_ms / float(self._latencies.estimate(promise, full).mean_ms[0])
            for promise, loosest_ms in self._loosest_ms.items()
        )

    def recall(self, known: Sequence[Evaluation], *, source: str, task: SearchTask) -> None:
        """Store what an equal supernet's evaluations told, at the latencies of this job."""
        entries = []
        for index, evaluation in enumerate(known):
            candidate = Candidate(
                subnet=SubnetConfig.from_dict(evaluation.subnet),
                index=index,
                genotype=evaluation.genotype,
            )
            told = Known(
                metrics=evaluation.metrics,
                fidelity=evaluation.fidelity,
                scores=(evaluation.state or {}).get(SCORES),
            )
            entries.append(self._entry(candidate, told, source, 0, task))
        self._ctx.record_evaluations(entries)

    def rivals(self, evaluations: Sequence[Evaluation], task: SearchTask) -> Rivals | None:
        """Those that may show that a candidate is not worth all rows; None where a job wants all.

        They have to be as good in the latency of every promise, and in all that the search weighs.
        """
        if not self._ctx.spec.search.halving:
            return None
        return rivals_among(
            evaluations, fidelity=self.fidelity, costs_of=lambda s: self._costs(s, task)
        )

    def _costs(self, subnets: Sequence[SubnetConfig], task: SearchTask) -> Floats:
        return np.column_stack([*self.latencies_ms(subnets), task.known(subnets)])

    def _entry(
        self,
        candidate: Candidate,
        known: Known,
        source: str,
        generation: int,
        task: SearchTask | None,
    ) -> Evaluation:
        subnet = candidate.subnet
        estimates = [self._latencies.estimate(p, [subnet]) for p in self._latencies.promises]
        estimate = estimates[0]
        metrics = {
            **{name: known.metrics[name] for name in ("quality", "loss", "num_rows")},
            "latency_ms": float(estimate.mean_ms[0]),
            "latency_lower_ms": float(estimate.lower_ms[0]),
            "latency_upper_ms": float(estimate.upper_ms[0]),
            # Of every promise in order: a device, a workload and a statistic each.
            "latencies_ms": [float(e.mean_ms[0]) for e in estimates],
            # By the bounds of the time: a repair may tighten them later.
            "within_bounds": [
                bool(self._trusted_ms(promise, e)[0] <= loosest_ms)
                for (promise, loosest_ms), e in zip(
                    self._loosest_ms.items(), estimates, strict=True
                )
            ],
        }
        if self._energies is not None:
            metrics["energy_mj"] = float(self.energies_mj([subnet])[0])
        state: dict[str, Any] = {}
        if task:
            state["values"] = list(task.values_of(subnet, known.metrics))
        if known.scores:
            state[SCORES] = known.scores
        return Evaluation(
            source=source,
            generation=generation,
            index_in_generation=candidate.index,
            fingerprint=subnet.fingerprint,
            fidelity=known.fidelity,
            subnet=subnet.to_dict(),
            metrics=metrics,
            genotype=candidate.genotype,
            state=state or None,
        )

    def _evaluate(
        self, subnets: Sequence[SubnetConfig], task: SearchTask | None, rivals: Rivals | None
    ) -> list[Known]:
        costs = self._costs(subnets, task) if task else np.zeros((len(subnets), 0))
        judged = judge(
            self._supernet,
            self._rows,
            subnets,
            costs,
            rivals,
            check_abort=self._ctx.check_abort,
        )
        return [self._known(one) for one in judged]

    def _known(self, judged: Judged) -> Known:
        is_whole = judged.num_rows == len(self._rows)
        return Known(
            metrics={
                "quality": judged.quality,
                "loss": judged.loss,
                "num_rows": judged.num_rows,
            },
            fidelity=(
                self.fidelity if is_whole else f"rows={judged.num_rows} of {len(self._rows)}"
            ),
            scores=pack(judged.scores) if is_whole and len(judged.scores) else None,
        )

    def _smallest_upper_ms(self, promise: Promise, space: SearchSpace) -> float:
        smallest = [space.smallest.with_precision(precision) for precision in space.precision]
        return float(self._latencies.estimate(promise, smallest).upper_ms.min())

    def record(
        self,
        candidates: Sequence[Candidate],
        *,
        source: str,
        generation: int,
        task: SearchTask | None = None,
        rivals: Rivals | None = None,
    ) -> bool:
        """Evaluate them and store what was told; False when the step's time is up before the last.

        With a `task` the values of its objectives are kept too, for its sampler.
        """
        ordered = by_beginning(candidates, lambda candidate: candidate.subnet)
        for start in range(0, len(ordered), GROUP_SIZE):
            if self._should_pause():
                return False
            group = ordered[start : start + GROUP_SIZE]
            told = self._told(group, task, rivals)
            self._ctx.record_evaluations(
                [
                    self._entry(candidate, known, source, generation, task)
                    for candidate, known in zip(group, told, strict=True)
                ]
            )
            self._num_recorded += len(group)
            self._tell_progress()
        return True

    def _told(
        self, candidates: Sequence[Candidate], task: SearchTask | None, rivals: Rivals | None
    ) -> list[Known]:
        """Of each candidate, by an evaluation or by that of an equal subnet."""
        subnets = [candidate.subnet for candidate in candidates]
        cached = [self._ctx.cached_quality(s.fingerprint, self.fidelity) for s in subnets]
        unknown = [s for s, metrics in zip(subnets, cached, strict=True) if metrics is None]
        judged = iter(self._evaluate(unknown, task, rivals) if unknown else [])
        return [
            next(judged) if metrics is None else Known(metrics=metrics, fidelity=self.fidelity)
            for metrics in cached
        ]

    def _tell_progress(self) -> None:
        search = self._ctx.spec.search
        total = search.num_evaluations * (1 + len(search.baselines))
        done = self._ctx.num_evaluations(["search", *search.baselines])
        self._ctx.progress(done, total, "evaluations")

    def _should_pause(self) -> bool:
        """Whether the step has run long enough; never before it has recorded something.

        Raises:
            StepAborted: it is to stop at once.
        """
        self._ctx.check_abort()
        return self._num_recorded > 0 and time.monotonic() >= self._deadline
