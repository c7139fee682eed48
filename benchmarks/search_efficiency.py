"""How many evaluations each sampler needs to find the front of a real supernet.

Every network of the supernet was evaluated once (benchmarks/data/README.md), so that the true
front is known and an evaluation is a look into a table. Latencies are those that a search would
see: of a predictor fitted to benchmarks/data/bert_latency.csv. All samplers propose as many
networks at a time, never one twice, and each runs with ten seeds.

python -m benchmarks.search_efficiency [--from-table PATH] [--samplers nsga2,surrogate]
python -m benchmarks.search_efficiency --build-table [--rows 1056]
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import report_result
from benchmarks.subnet_table import TABLE, SubnetTable, fit_latencies
from benchmarks.whole_search import search_whole
from search.evolution import SearchTask
from search.objectives import LATENCY, QUALITY, Floats, to_losses
from search.pareto import hypervolume
from search.samplers import SAMPLERS
from search.space import SubnetConfig

STATE = Path(".snugnet/search-efficiency")
POPULATION = 25
SEEDS = 10
BUDGET = 250
# Those that others are held against go on until they have found what the others found sooner.
BUDGETS = {"random": 2000, "nsga2": 1000}
COUNTS = (50, 100, 150, 250)
SHARES_OF_VOLUME = (0.95, 0.97, 0.99)
BEST_SHARES = (0.01, 0.05)


class Truth:
    """A table as a search sees it, and what there is to be found in it.

    The reference point of hypervolumes is the worst latency and the worst quality of the table.
    The best networks are those whose quality is nearest to the best that any network as fast has.
    """

    def __init__(self, table: SubnetTable) -> None:
        self.table = table
        subnets = [entry.subnet for entry in table.entries]
        latencies_ms = fit_latencies().predict(subnets).mean_ms
        self._latency_ms = {
            subnet.fingerprint: float(latency)
            for subnet, latency in zip(subnets, latencies_ms, strict=True)
        }
        quality = [entry.quality for entry in table.entries]
        self.task = SearchTask(
            space=table.space,
            objectives=(LATENCY, QUALITY),
            known=self._known,
            are_feasible=lambda subnets: np.ones(len(subnets), dtype=np.bool_),
        )
        self.losses = to_losses(self.task.objectives, np.column_stack([latencies_ms, quality]))
        self.reference = tuple(self.losses.max(axis=0).tolist())
        self.volume = self.volume_of(self.losses)
        self._places = {subnet.fingerprint: place for place, subnet in enumerate(subnets)}

    def _known(self, subnets: Sequence[SubnetConfig]) -> Floats:
        return np.array([[self._latency_ms[s.fingerprint]] for s in subnets]).reshape(-1, 1)

    def volume_of(self, losses: Floats) -> float:
        return hypervolume(losses.tolist(), self.reference)

    def place_of(self, subnet: SubnetConfig) -> int:
        return self._places[subnet.fingerprint]

    @cached_property
    def regret(self) -> Floats:
        """What each network's quality lacks of the best that is as fast or faster."""
        order = np.lexsort((self.losses[:, 1], self.losses[:, 0]))
        best = np.empty(len(order))
        best[order] = np.minimum.accumulate(self.losses[order, 1])
        return self.losses[:, 1] - best

    def best(self, share: float) -> set[int]:
        """Places of the best networks; of equal regret the faster ones."""
        count = round(share * len(self.table))
        return set(np.lexsort((self.losses[:, 0], self.regret))[:count].tolist())


@lru_cache(maxsize=1)
def load_truth(path: Path) -> Truth:
    return Truth(SubnetTable.load(path))


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One search: places of the networks in the order of their evaluation."""

    sampler: str
    seed: int
    places: tuple[int, ...]
    seconds: float


def search(path: Path, population: int, job: tuple[str, int, int]) -> Run:
    """`job` is a sampler's name, how many networks it may evaluate, and the seed."""
    sampler, budget, seed = job
    truth = load_truth(path)
    start = time.process_time()
    found = search_whole(
        truth.task,
        sampler,
        lambda subnets: [truth.table[subnet].quality for subnet in subnets],
        population=population,
        generations=budget // population,
        seed=seed,
    )
    places = [truth.place_of(subnet) for subnet, _ in found]
    seconds = time.process_time() - start
    return Run(sampler=sampler, seed=seed, places=tuple(places), seconds=seconds)


def volumes(truth: Truth, run: Run) -> Floats:
    """Share of the true hypervolume after each evaluation, (evaluations,)."""
    front: list[list[float]] = []
    shares = np.empty(len(run.places))
    for count, place in enumerate(run.places):
        loss = truth.losses[place].tolist()
        if not any(all(b <= x for b, x in zip(better, loss, strict=True)) for better in front):
            front = [f for f in front if not all(x <= b for b, x in zip(f, loss, strict=True))]
            front.append(loss)
            shares[count] = hypervolume(front, truth.reference) / truth.volume
        else:
            shares[count] = shares[count - 1]
    return shares


def figures_of(truth: Truth, runs: Sequence[Run]) -> dict[str, Any]:
    """Of one sampler's runs over the seeds."""
    curves = np.stack([volumes(truth, run) for run in runs])
    within = {run.seed: set(run.places[:BUDGET]) for run in runs}
    return {
        "hypervolume": {str(n): spread(curves[:, n - 1]) for n in COUNTS},
        "evaluations_to": {
            f"{share:.0%}": evaluations_to(curves, share) for share in SHARES_OF_VOLUME
        },
        "best_found": {
            f"{share:.0%}": float(
                np.mean([len(truth.best(share) & found) for found in within.values()])
                / len(truth.best(share))
            )
            for share in BEST_SHARES
        },
        "seconds_a_proposal": float(np.mean([r.seconds / len(r.places) for r in runs])),
    }


def spread(values: Floats) -> dict[str, float]:
    return {"mean": float(values.mean()), "min": float(values.min()), "max": float(values.max())}


def evaluations_to(curves: Floats, share: float) -> dict[str, Any]:
    """Median over all seeds, None where half of them never get there, and how many do."""
    counts = [first_at(curve, share) for curve in curves]
    reached = [count for count in counts if count is not None]
    median = None
    if 2 * len(reached) > len(counts):
        median = float(np.median([np.inf if count is None else count for count in counts]))
    return {"median": median, "reached": len(reached), "seeds": len(counts)}


def first_at(curve: Floats, share: float) -> int | None:
    """Evaluations after which a curve is at `share` for the first time."""
    places = np.flatnonzero(curve >= share)
    return int(places[0]) + 1 if len(places) else None


def compare(path: Path, samplers: Sequence[str], *, population: int, seeds: int) -> dict[str, Any]:
    """Every sampler on every seed, on all cores."""
    truth = load_truth(path)
    jobs = [
        (sampler, BUDGETS.get(sampler, BUDGET), seed)
        for sampler, seed in itertools.product(samplers, range(seeds))
    ]
    runs = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for run in pool.map(partial(search, path, population), jobs):
            print(f"{run.sampler} {run.seed}: {run.seconds:.0f} s", file=sys.stderr, flush=True)
            runs.append(run)
    of = {name: [run for run in runs if run.sampler == name] for name in samplers}
    return {
        "table": {
            "networks": len(truth.table),
            "rows": truth.table.entries[0].num_rows,
            "on_the_true_front": int((truth.regret == 0).sum()),
            "reference_latency_ms": truth.reference[0],
            "reference_quality": -truth.reference[1],
            "best_quality": float(-truth.losses[:, 1].min()),
        },
        "population": population,
        "seeds": seeds,
        "samplers": {name: figures_of(truth, found) for name, found in of.items()},
        "evaluations_for": _crossings(truth, of),
    }


def _crossings(truth: Truth, of: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, Any]]:
    """Evaluations that each sampler's mean curve needs for what another's has at the budget."""
    curves = {
        name: np.stack([volumes(truth, run) for run in runs]).mean(axis=0)
        for name, runs in of.items()
    }
    wanted = {name: curves[name][BUDGET - 1] for name in ("nsga2", "random") if name in curves}
    return {
        f"{name} at {BUDGET}": {other: first_at(curve, share) for other, curve in curves.items()}
        for name, share in wanted.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--from-table", type=Path, default=TABLE, help="CSV of a space's networks")
    parser.add_argument("--build-table", action="store_true", help="train and evaluate it anew")
    parser.add_argument("--rows", type=int, default=1056, help="of the search split, for --build")
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--population", type=int, default=POPULATION)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    args = parser.parse_args(arguments)
    if args.build_table:
        from benchmarks.subnet_table_build import build_table

        build_table(args.from_table, STATE, num_rows=args.rows)
    samplers = args.samplers.split(",")
    figures = compare(args.from_table, samplers, population=args.population, seeds=args.seeds)
    is_whole = (
        samplers == list(SAMPLERS)
        and (args.population, args.seeds) == (POPULATION, SEEDS)
        and args.from_table == TABLE
    )
    report_result("search_efficiency", figures, keep=is_whole)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
