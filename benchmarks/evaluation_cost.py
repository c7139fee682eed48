"""What it costs to evaluate a search's candidates, and what two ways to save change.

The supernet of MiniLM that `hardware_awareness` trains is searched three times by each sampler:
every candidate by itself on all rows of the sample; the same candidates with leading layers that
several share run once; and those with candidates given up early that an earlier one beats
(successive halving), which may lead the search elsewhere. What that third search found is then
judged on all rows too: its hypervolume is what it really found. Times are processor seconds; the
first two ways take turns, generation by generation. A quarter of an hour each; a run that was
stopped goes on with the sampler that it was at.

python -m benchmarks.evaluation_cost [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.common import report_result
from benchmarks.hardware_awareness import learn_device, load_supernet, state_of
from benchmarks.kept import Kept
from benchmarks.movie_supernet import MovieSupernet, read_rows
from benchmarks.small_search import latency_task
from benchmarks.whole_search import search_whole
from predictors.workload_predictor import WorkloadPredictor
from search.halving import Rivals
from search.model.extract import extract
from search.objectives import LATENCY, QUALITY, Floats, to_losses
from search.pareto import hypervolume
from search.space import SearchSpace, SubnetConfig
from search.training.evaluate import evaluate
from search.training.judging import Judged, in_fair_order, judge
from search.training.rows import Rows
from search.training.together import num_layers_run

TRIED = ("surrogate", "nsga2", "random")
LOOSEST_RATIO = 0.5
SEED = 0


@dataclass(kw_only=True, slots=True)
class Spent:
    """In a search of one way."""

    seconds: float = 0.0
    rows: int = 0
    layers: int = 0
    layers_run: int = 0
    candidates: int = 0
    found: dict[SubnetConfig, float] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="little of everything, nothing kept")
    is_quick = parser.parse_args().quick
    torch.set_num_threads(1)
    start = time.perf_counter()
    figures = _Study(is_quick=is_quick).figures()
    figures["minutes_of_this_run"] = round((time.perf_counter() - start) / 60, 1)
    report_result("evaluation_cost", figures, keep=not is_quick)
    return 0


class _Study:
    def __init__(self, *, is_quick: bool) -> None:
        state, self._effort = state_of(is_quick=is_quick)
        self._kept = Kept(state)
        rows = read_rows(state)
        self._supernet: MovieSupernet = load_supernet(state, rows, self._effort)
        self._space: SearchSpace = self._supernet.space
        self._sample: Rows = in_fair_order(rows["search"].spread(self._effort.search_rows))
        self._predictor: WorkloadPredictor = learn_device(self._space, self._effort)[0]
        self._qualities: dict[SubnetConfig, float] = {}

    def figures(self) -> dict[str, Any]:
        return {
            "rows": len(self._sample),
            "population": self._effort.population,
            "generations": self._effort.generations,
            "samplers": {sampler: self._compared(sampler) for sampler in TRIED},
        }

    def _compared(self, sampler: str) -> dict[str, Any]:
        name = f"cost-of-{sampler}"
        found = self._kept.figures(name)
        if found is None:
            found = self._compare(sampler)
            self._kept.save_figures(name, found)
        return found

    def _compare(self, sampler: str) -> dict[str, Any]:
        alone, together, halved = Spent(), Spent(), Spent()

        def both(subnets: Sequence[SubnetConfig]) -> list[Judged]:
            self._timed(alone, subnets, self._judge_alone)
            return self._timed(together, subnets, lambda s: self._judge(s, None))

        self._search(sampler, lambda subnets, _: both(subnets), together)
        self._search(
            sampler,
            lambda subnets, rivals: self._timed(halved, subnets, lambda s: self._judge(s, rivals)),
            halved,
        )
        print(f"{sampler}: {alone.seconds:.0f}, {together.seconds:.0f}, {halved.seconds:.0f} s")
        return {
            "candidates": alone.candidates,
            "seconds_a_candidate": alone.seconds / alone.candidates,
            "together": {
                "seconds_of_alone": together.seconds / alone.seconds,
                "layers_of_alone": together.layers_run / together.layers,
                "hypervolume": self._hypervolume(together.found),
            },
            "halving": {
                "seconds_of_alone": halved.seconds / alone.seconds,
                "rows_of_alone": halved.rows / alone.rows,
                "given_up": sum(
                    abs(quality - self._quality(subnet)) > 0
                    for subnet, quality in halved.found.items()
                )
                / halved.candidates,
                "hypervolume": self._hypervolume(halved.found),
            },
        }

    # --- the ways to evaluate ---------------------------------------------------------------

    def _timed(
        self,
        spent: Spent,
        subnets: Sequence[SubnetConfig],
        way: Callable[[Sequence[SubnetConfig]], list[Judged]],
    ) -> list[Judged]:
        start = time.process_time()
        judged = way(subnets)
        spent.seconds += time.process_time() - start
        spent.candidates += len(subnets)
        spent.rows += sum(one.num_rows for one in judged)
        spent.layers += sum(subnet.num_layers for subnet in subnets)
        spent.layers_run += num_layers_run(subnets)
        return judged

    def _judge_alone(self, subnets: Sequence[SubnetConfig]) -> list[Judged]:
        judged = []
        for subnet in subnets:
            model = extract(self._supernet.model, subnet)
            found = evaluate(model, self._sample, subnet.renumbered())
            self._qualities[subnet] = found.value
            judged.append(
                Judged(
                    quality=found.value,
                    loss=found.loss,
                    num_rows=found.num_rows,
                    scores=np.empty(0),
                )
            )
        return judged

    def _judge(self, subnets: Sequence[SubnetConfig], rivals: Rivals | None) -> list[Judged]:
        costs = self._latencies_ms(subnets)
        return judge(self._supernet.model, self._sample, subnets, costs, rivals)

    # --- the search ---------------------------------------------------------------------------

    def _search(
        self,
        sampler: str,
        judged_by: Callable[[Sequence[SubnetConfig], Rivals | None], list[Judged]],
        spent: Spent,
    ) -> None:
        whole: list[tuple[SubnetConfig, Judged]] = []

        def qualities_of(subnets: Sequence[SubnetConfig]) -> list[float]:
            judged = judged_by(subnets, self._rivals(whole))
            pairs = list(zip(subnets, judged, strict=True))
            whole.extend(pair for pair in pairs if pair[1].num_rows == len(self._sample))
            spent.found.update((subnet, one.quality) for subnet, one in pairs)
            return [one.quality for one in judged]

        loosest_ms = LOOSEST_RATIO * self._predictor.reference_ms
        search_whole(
            latency_task(self._space, self._predictor, loosest_ms),
            sampler,
            qualities_of,
            population=self._effort.population,
            generations=self._effort.generations,
            seed=SEED,
        )

    def _rivals(self, whole: Sequence[tuple[SubnetConfig, Judged]]) -> Rivals | None:
        if not whole:
            return None
        return Rivals(
            costs=self._latencies_ms([subnet for subnet, _ in whole]),
            scores=np.stack([one.scores for _, one in whole]),
            qualities=np.array([one.quality for _, one in whole]),
        )

    def _latencies_ms(self, subnets: Sequence[SubnetConfig]) -> Floats:
        return self._predictor.predict(subnets).mean_ms.reshape(-1, 1)

    # --- what was really found ----------------------------------------------------------------

    def _quality(self, subnet: SubnetConfig) -> float:
        """On all rows."""
        if subnet not in self._qualities:
            self._judge_alone([subnet])
        return self._qualities[subnet]

    def _hypervolume(self, found: dict[SubnetConfig, float]) -> float:
        """As a share of what a perfect network would have that takes no time."""
        subnets = list(found)
        qualities = [self._quality(subnet) for subnet in subnets]
        ratios = self._latencies_ms(subnets)[:, 0] / self._predictor.reference_ms
        losses = to_losses((LATENCY, QUALITY), np.column_stack([ratios, qualities]))
        area = hypervolume(losses.tolist(), (LOOSEST_RATIO, -0.5))
        return area / (LOOSEST_RATIO * 0.5)


if __name__ == "__main__":
    raise SystemExit(main())
