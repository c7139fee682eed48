"""Evaluation of candidates: predicted latency, and accuracy on rows of the search split."""

from __future__ import annotations

import json
from dataclasses import asdict

from predictors.workload_predictor import WorkloadPredictor
from search.model.extract import extract
from search.space import SubnetConfig
from search.training.evaluate import evaluate
from service.evaluations import Evaluation
from workers.context import JobContext
from workers.steps.data import load_network, load_rows, set_threads
from workers.steps.state import State


def load_predictor(ctx: JobContext, state: State) -> WorkloadPredictor:
    assert state.predictor is not None
    return WorkloadPredictor.from_json(json.loads(ctx.blob(state.predictor).read_text()))


class Evaluator:
    """Evaluates subnets of a job's supernet and records them; equal ones only once."""

    def __init__(self, ctx: JobContext, state: State) -> None:
        set_threads(ctx)
        self._ctx = ctx
        self._predictor = load_predictor(ctx, state)
        self._statistic = ctx.spec.targets[0].statistic
        self._loosest_ms = max(target.bound_ms for target in state.targets)
        smallest = self._predictor.predict([state.search_space.smallest], self._statistic)
        # Intervals of a noisy device may be too wide for any network; then the mean has to do.
        self._trusts_mean = bool(smallest.upper_ms[0] > self._loosest_ms)
        self._supernet = load_network(ctx, state, state.blobs.supernet)
        self._rows = load_rows(ctx, state.blobs.search).spread(ctx.spec.search.fidelity_rows)
        self._fidelity = f"rows={len(self._rows)}"

    def is_feasible(self, subnet: SubnetConfig) -> bool:
        """Whether the upper end of the predicted interval keeps the loosest budget."""
        estimate = self._predictor.predict([subnet], self._statistic)
        latency_ms = estimate.mean_ms if self._trusts_mean else estimate.upper_ms
        return bool(latency_ms[0] <= self._loosest_ms)

    def record(
        self,
        subnet: SubnetConfig,
        *,
        source: str,
        generation: int,
        index: int,
        genotype: dict[str, object] | None = None,
    ) -> None:
        """Evaluate, or take the quality of an equal subnet; then store."""
        quality = self._ctx.cached_quality(subnet.fingerprint, self._fidelity)
        if quality is None:
            quality = asdict(
                evaluate(extract(self._supernet, subnet), self._rows, subnet.renumbered())
            )
        estimate = self._predictor.predict([subnet], self._statistic)
        metrics = {
            "accuracy": quality["accuracy"],
            "loss": quality["loss"],
            "num_rows": quality["num_rows"],
            "latency_ms": float(estimate.mean_ms[0]),
            "latency_lower_ms": float(estimate.lower_ms[0]),
            "latency_upper_ms": float(estimate.upper_ms[0]),
        }
        self._ctx.record_evaluation(
            Evaluation(
                source=source,
                generation=generation,
                index_in_generation=index,
                fingerprint=subnet.fingerprint,
                fidelity=self._fidelity,
                subnet=subnet.to_dict(),
                metrics=metrics,
                genotype=genotype,
            )
        )
