"""Evaluation of candidates: predicted latency, and quality on rows of the search split."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from search.evolution import SearchTask
from search.model.extract import extract
from search.objectives import Floats
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig
from search.training.evaluate import evaluate
from service.evaluations import Evaluation
from workers.context import JobContext
from workers.steps.data import load_network, load_rows, set_threads
from workers.steps.latencies import Latencies, Promise
from workers.steps.state import State

TOO_SLOW = 10.0  # times the loosest budget


class Evaluator:
    """Evaluates subnets of a job's supernet and records them; equal ones only once."""

    def __init__(self, ctx: JobContext, state: State) -> None:
        set_threads(ctx)
        self._ctx = ctx
        self._deadline = time.monotonic() + ctx.settings.step_seconds
        self._num_recorded = 0
        self._latencies = Latencies.of(ctx, state)
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
        self._rows = load_rows(ctx, state.blobs.search).spread(ctx.spec.search.fidelity_rows)
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

    def are_feasible(self, subnets: Sequence[SubnetConfig]) -> npt.NDArray[np.bool_]:
        """Whether the upper end of the predicted interval keeps the loosest of some promise."""
        feasible = np.zeros(len(subnets), dtype=np.bool_)
        for promise, loosest_ms in self._loosest_ms.items():
            estimate = self._latencies.estimate(promise, subnets)
            trusted = estimate.mean_ms if self._trusts_mean[promise] else estimate.upper_ms
            feasible |= trusted <= loosest_ms
        return feasible

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
            subnet = SubnetConfig.from_dict(evaluation.subnet)
            place = {"source": source, "generation": 0, "index_in_generation": index}
            entries.append(
                self._entry(subnet, evaluation.metrics, place, evaluation.genotype, task)
            )
        self._ctx.record_evaluations(entries)

    def _entry(
        self,
        subnet: SubnetConfig,
        found: Mapping[str, float],
        place: Mapping[str, Any],
        genotype: dict[str, Any] | None,
        task: SearchTask | None,
    ) -> Evaluation:
        estimates = [self._latencies.estimate(p, [subnet]) for p in self._latencies.promises]
        estimate = estimates[0]
        metrics = {
            **{name: found[name] for name in ("quality", "loss", "num_rows")},
            "latency_ms": float(estimate.mean_ms[0]),
            "latency_lower_ms": float(estimate.lower_ms[0]),
            "latency_upper_ms": float(estimate.upper_ms[0]),
            # Of every promise in order: a device, a workload and a statistic each.
            "latencies_ms": [float(e.mean_ms[0]) for e in estimates],
        }
        return Evaluation(
            **place,
            fingerprint=subnet.fingerprint,
            fidelity=self.fidelity,
            subnet=subnet.to_dict(),
            metrics=metrics,
            genotype=genotype,
            state={"values": list(task.values_of(subnet, found))} if task else None,
        )

    def _evaluate(self, subnet: SubnetConfig) -> dict[str, float]:
        found = evaluate(extract(self._supernet, subnet), self._rows, subnet.renumbered())
        return {"quality": found.value, "loss": found.loss, "num_rows": found.num_rows}

    def _smallest_upper_ms(self, promise: Promise, space: SearchSpace) -> float:
        smallest = [space.smallest.with_precision(precision) for precision in space.precision]
        return float(self._latencies.estimate(promise, smallest).upper_ms.min())

    def record(
        self,
        subnet: SubnetConfig,
        *,
        source: str,
        generation: int,
        index: int,
        genotype: dict[str, object] | None = None,
        task: SearchTask | None = None,
    ) -> None:
        """Evaluate, or take the quality of an equal subnet; then store.

        With a `task` the values of its objectives are kept too, for its sampler.
        """
        known = self._ctx.cached_quality(subnet.fingerprint, self.fidelity)
        found = self._evaluate(subnet) if known is None else known
        place = {"source": source, "generation": generation, "index_in_generation": index}
        self._ctx.record_evaluation(self._entry(subnet, found, place, genotype, task))
        self._num_recorded += 1
        search = self._ctx.spec.search
        total = search.num_evaluations * (1 + len(search.baselines))
        done = self._ctx.num_evaluations(["search", *search.baselines])
        self._ctx.progress(done, total, "evaluations")

    def should_pause(self) -> bool:
        """Whether the step has run long enough; never before it has recorded something.

        Raises:
            StepAborted: it is to stop at once.
        """
        self._ctx.check_abort()
        return self._num_recorded > 0 and time.monotonic() >= self._deadline
