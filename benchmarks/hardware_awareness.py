"""What knowing the device is worth: quality at equal latency, on MiniLM and this machine.

One supernet, one predictor, and as many evaluations for each way to choose a network: a search by
predicted latency; the same search by FLOPs, its finds then filtered by latency; networks whose
layers are all alike; and random ones. What each is believed to be best within a budget, of several
depths (see `search.choosing`), is distilled for a short while; the best on the validation and
search splits is judged on the test split, and all winners are timed in one session. Budgets are
shares of the unsearched fp32 model's latency.

Then precision: a search in which every third of the layers has a precision of its own (joint)
against the fp32 search whose networks are quantized afterwards (sequential), both distilled under
the rounding of int8. Sequential may look at the int8 latencies, so that it is no straw man.

What a run has done is kept in its state's folder: one that was stopped goes on from there.

python -m benchmarks.hardware_awareness [--quick] [--state DIR]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import MINILM, report_result
from benchmarks.equal_terms import Bools, Point, geometric_mean, paired_points, speedups
from benchmarks.kept import Judged, Kept
from benchmarks.local_device import fit_predictor, measure_networks, weight_bits
from benchmarks.movie_supernet import BATCH_SIZE, MovieSupernet, read_rows, trained
from benchmarks.small_search import latency_task
from benchmarks.whole_search import search_whole
from predictors.workload import Workload
from predictors.workload_predictor import WorkloadPredictor
from search.baselines import hardware_agnostic, uniform_networks
from search.choosing import believed_qualities, shortlist
from search.compress.distill import Distillation, TaskData
from search.costs import flops
from search.evolution import SearchTask
from search.model.extract import extract
from search.space import SearchSpace, SubnetConfig
from search.training.evaluate import evaluate, evaluate_rows, quality_of
from search.training.precision import choose_precision
from search.training.rows import Rows
from search.training.together import evaluate_together

WORKLOAD = Workload(seq_len=64)
BUDGETS = (1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8)
METHODS = ("hardware-aware", "flops-only", "uniform", "random")
PRECISION_GROUPS = 3
DISTILLATION_RATE = 1e-4
SEED = 0
STATE = Path(".snugnet/hardware-awareness")


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    teacher_epochs: float = 2.0
    supernet_epochs: float = 1.5
    measured: int = 36
    held_out: int = 10
    population: int = 20
    generations: int = 8
    search_rows: int = 600
    raced: int = 3
    # Of a network that takes all of the original's time: faster ones get as many more as they
    # are faster, as a job's networks do.
    distillation_steps: int = 20
    max_distillation_steps: int = 100
    budgets: tuple[float, ...] = BUDGETS


QUICK = Effort(
    teacher_epochs=0.02,
    supernet_epochs=0.02,
    measured=16,
    held_out=4,
    population=6,
    generations=2,
    search_rows=64,
    raced=2,
    distillation_steps=2,
    budgets=(1 / 2, 1 / 6),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Winner:
    """Of one method within one budget; `is_right` of each row of the test split."""

    study: str
    method: str
    budget: float
    subnet: SubnetConfig
    predicted_ms: float
    inherited: float
    is_right: Bools = field(repr=False)
    loss: float

    @property
    def quality(self) -> float:
        return float(self.is_right.mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="little of everything, nothing kept")
    parser.add_argument("--state", type=Path, metavar="DIR", help="of the trained supernet")
    parser.add_argument("--threads", type=int, default=1, help="of training; measured is with 1")
    arguments = parser.parse_args()
    is_quick = arguments.quick
    torch.set_num_threads(arguments.threads)
    state, effort = state_of(is_quick=is_quick)
    start = time.perf_counter()
    figures = _Study(arguments.state or state, effort).figures()
    figures["minutes_of_this_run"] = round((time.perf_counter() - start) / 60, 1)
    report_result("hardware_awareness", figures, keep=not is_quick)
    return 0


def state_of(*, is_quick: bool) -> tuple[Path, Effort]:
    """Where the trained supernet is kept, and how it is trained."""
    state = STATE.with_name(f"{STATE.name}{'-quick' * is_quick}")
    state.mkdir(parents=True, exist_ok=True)
    return state, QUICK if is_quick else Effort()


def load_supernet(state: Path, rows: Mapping[str, Rows], effort: Effort) -> MovieSupernet:
    """Trained here, or by an earlier run; it rounds to int8 as the files on this machine do."""
    supernet = trained(
        state,
        rows,
        SearchSpace.for_shape(MINILM),
        teacher_epochs=effort.teacher_epochs,
        supernet_epochs=effort.supernet_epochs,
    )
    supernet.model.weight_bits = weight_bits()
    return supernet


def learn_device(space: SearchSpace, effort: Effort) -> tuple[WorkloadPredictor, dict[str, Any]]:
    """A predictor of this machine at the workload, and its fit report."""
    return fit_predictor(
        space,
        MINILM,
        WORKLOAD,
        num_networks=effort.measured,
        num_holdout=effort.held_out,
        seed=SEED,
    )


class _Study:
    def __init__(self, state: Path, effort: Effort) -> None:
        self._effort = effort
        self._kept = Kept(state)
        self._rows = read_rows(state)
        self._sample = self._rows["search"].spread(effort.search_rows)
        self._known = self._kept.qualities()
        self._supernet: MovieSupernet = load_supernet(state, self._rows, effort)
        self._space = self._supernet.space
        self._predictor, self._fit = self._kept.predictor() or learn_device(self._space, effort)
        self._kept.save_predictor(self._predictor, self._fit)
        print(f"predictor: {self._fit}", flush=True)
        self._precision = choose_precision("auto", MINILM)
        self._loosest_ms = max(effort.budgets) * self._predictor.reference_ms

    def figures(self) -> dict[str, Any]:
        winners: list[Winner] = []
        floats: list[SubnetConfig] = []
        for precision in ("fp32", "int8"):
            for method in METHODS:
                found = self._find(method, self._space.with_choices({"precision": (precision,)}))
                if (precision, method) == ("fp32", "hardware-aware"):
                    floats = found
                winners += self._choose_all(precision, method, found)
        quantized = [subnet.with_precision("int8") for subnet in floats]
        by_float = {q: self._known[f] for q, f in zip(quantized, floats, strict=True)}
        winners += self._choose_all("precision", "sequential", quantized, qualities=by_float)
        joint = self._space.with_choices({"precision_groups": PRECISION_GROUPS})
        winners += self._choose_all("precision", "joint", self._find("hardware-aware", joint))
        latencies_ms = measure_networks(
            [SubnetConfig.full(MINILM), *(w.subnet.renumbered() for w in winners)],
            MINILM,
            WORKLOAD,
            seed=SEED,
        )
        original_ms, measured_ms = latencies_ms[0], latencies_ms[1:]
        return {
            "workload": WORKLOAD.to_dict(),
            "effort": {k: getattr(self._effort, k) for k in self._effort.__slots__},
            "predictor": self._fit,
            "training_precision": self._precision,
            "original_ms": original_ms,
            "original_accuracy": evaluate(self._supernet.teacher, self._rows["test"]).value,
            "test_rows": len(self._rows["test"]),
            "winners": [
                _described(w, ms, original_ms) for w, ms in zip(winners, measured_ms, strict=True)
            ],
            "at_equal_latency": {
                precision: _against_others([w for w in winners if w.study == precision])
                for precision in ("fp32", "int8")
            },
            "joint_against_sequential": _joint_against_sequential(winners, measured_ms),
        }

    # --- the ways to find networks --------------------------------------------------------

    def _find(self, method: str, space: SearchSpace) -> list[SubnetConfig]:
        """Evaluated networks of the space, as many for every method."""
        task = latency_task(space, self._predictor, self._loosest_ms)
        count = self._effort.population * self._effort.generations
        if method == "uniform":
            found = uniform_networks(task, count)
        elif method == "flops-only":
            # Told how much faster the precision is by itself, or it would look at too few.
            full = SubnetConfig.full(MINILM, space.precision[0])
            ratio = self._loosest_ms / float(self._predictor.predict([full]).mean_ms[0])
            agnostic = hardware_agnostic(task, MINILM, _flops_of, budget_ratio=min(1.0, ratio))
            found = self._searched(agnostic, "surrogate")
        else:
            sampler = "random" if method == "random" else "surrogate"
            found = self._searched(task, sampler)
        self._judge(found)
        print(f"{space.precision} {method}: {len(found)} networks", flush=True)
        return found

    def _searched(self, task: SearchTask, sampler: str) -> list[SubnetConfig]:
        def qualities_of(subnets: Sequence[SubnetConfig]) -> list[float]:
            self._judge(subnets)
            return [self._known[subnet] for subnet in subnets]

        found = search_whole(
            task,
            sampler,
            qualities_of,
            population=self._effort.population,
            generations=self._effort.generations,
            seed=SEED,
        )
        return [subnet for subnet, _ in found]

    def _judge(self, subnets: Sequence[SubnetConfig]) -> None:
        """With the weights that they inherit, on the search split."""
        new = [subnet for subnet in dict.fromkeys(subnets) if subnet not in self._known]
        scores = evaluate_together(self._supernet.model, self._sample, new)
        for subnet, of_rows in zip(new, scores, strict=True):
            self._known[subnet] = quality_of(of_rows, MINILM).value
        if new:
            self._kept.save_qualities(self._known)

    # --- the best within each budget ----------------------------------------------------------

    def _choose_all(
        self,
        study: str,
        method: str,
        found: Sequence[SubnetConfig],
        *,
        qualities: Mapping[SubnetConfig, float] | None = None,
    ) -> list[Winner]:
        """A winner for every budget that a network keeps."""
        latencies_ms = self._predictor.predict(found).mean_ms
        own = [(qualities or self._known)[subnet] for subnet in found]
        believed = believed_qualities(self._space, found, own)
        winners = []
        for budget in self._effort.budgets:
            within = np.flatnonzero(latencies_ms <= budget * self._predictor.reference_ms).tolist()
            subnets = [found[place] for place in within]
            raced = [
                (self._judged(subnets[place]), within[place])
                for place in shortlist(subnets, believed[within].tolist(), self._effort.raced)
            ]
            if not raced:
                continue
            judged, place = max(raced, key=lambda r: r[0].chosen_by)
            winner = Winner(
                study=study,
                method=method,
                budget=budget,
                subnet=found[place],
                predicted_ms=float(latencies_ms[place]),
                inherited=own[place],
                is_right=judged.is_right,
                loss=judged.loss,
            )
            print(f"{study} {method} {budget:.3f}: {winner.quality:.1%}", flush=True)
            winners.append(winner)
        return winners

    def _judged(self, subnet: SubnetConfig) -> Judged:
        """Of a network after its distillation, or as an earlier run kept it."""
        name = f"distilled-{subnet.fingerprint}"
        judged = self._kept.judged(name) or self._distilled(subnet)
        self._kept.save_judged(name, judged)
        return judged

    def _distilled(self, subnet: SubnetConfig) -> Judged:
        effort = self._effort
        share = float(self._predictor.predict([subnet]).mean_ms[0]) / self._predictor.reference_ms
        student = extract(self._supernet.model, subnet)
        data = TaskData(
            self._rows["train"], self._rows["validation"], self._supernet.target_of, BATCH_SIZE
        )
        distillation = Distillation(
            student,
            subnet,
            data,
            total_steps=min(
                effort.max_distillation_steps, round(effort.distillation_steps / share)
            ),
            learning_rate=DISTILLATION_RATE,
            seed=SEED,
            precision=self._precision,
        )
        distillation.run.advance(distillation.losses_at, should_stop=lambda: False)
        chosen_by = [
            evaluate_rows(student, self._rows[split], subnet.renumbered()).score
            for split in ("validation", "search")
        ]
        scores = evaluate_rows(student, self._rows["test"], subnet.renumbered())
        return Judged(
            is_right=scores.score.numpy() > 0.5,
            loss=float(scores.loss.mean()),
            chosen_by=float(torch.cat(chosen_by).mean()),
        )


def _flops_of(subnet: SubnetConfig) -> int:
    return flops(MINILM, subnet, seq_len=WORKLOAD.seq_len)


def _described(winner: Winner, measured_ms: float, original_ms: float) -> dict[str, Any]:
    return {
        "study": winner.study,
        "method": winner.method,
        "budget": round(winner.budget, 4),
        "predicted_ms": winner.predicted_ms,
        "measured_ms": measured_ms,
        "measured_over_budget": measured_ms / (winner.budget * original_ms),
        "inherited_quality": winner.inherited,
        "quality": winner.quality,
        "loss": winner.loss,
        "subnet": winner.subnet.to_dict(),
    }


def _against_others(winners: Sequence[Winner]) -> dict[str, Any]:
    """By how many points the hardware-aware winner is above each other, per budget and overall."""
    ours = {w.budget: w for w in winners if w.method == METHODS[0]}
    figures: dict[str, Any] = {}
    for method in METHODS[1:]:
        theirs = {w.budget: w for w in winners if w.method == method}
        shared = [budget for budget in ours if budget in theirs]
        figures[method] = {
            f"1/{round(1 / b)}": paired_points(ours[b].is_right, theirs[b].is_right)
            for b in shared
        }
        if shared:
            figures[method]["all"] = _over_budgets(
                [ours[b] for b in shared], [theirs[b] for b in shared]
            )
    return figures


def _over_budgets(ours: Sequence[Winner], theirs: Sequence[Winner]) -> dict[str, float]:
    """Mean over the budgets; a row counts once, with the mean of what it says of each."""
    gaps = [a.is_right.astype(np.float64) - b.is_right for a, b in zip(ours, theirs, strict=True)]
    of_row = np.mean(gaps, axis=0)
    half = 1.96 * float(of_row.std()) / len(of_row) ** 0.5
    mean = float(of_row.mean())
    return {"points": 100 * mean, "lower": 100 * (mean - half), "upper": 100 * (mean + half)}


def _joint_against_sequential(
    winners: Sequence[Winner], measured_ms: Sequence[float]
) -> dict[str, Any]:
    """How much faster at equal accuracy, and at equal loss, which is less coarse."""
    by_accuracy: dict[str, list[Point]] = {"joint": [], "sequential": []}
    by_loss: dict[str, list[Point]] = {"joint": [], "sequential": []}
    for winner, ms in zip(winners, measured_ms, strict=True):
        if winner.study == "precision":
            by_accuracy[winner.method].append(Point(ms, winner.quality))
            by_loss[winner.method].append(Point(ms, -winner.loss))
    figures: dict[str, Any] = {}
    for name, points in (("accuracy", by_accuracy), ("loss", by_loss)):
        found = speedups(points["joint"], points["sequential"])
        figures[f"speedup_at_equal_{name}"] = geometric_mean(found)
        figures[f"speedups_at_equal_{name}"] = found
    return figures


if __name__ == "__main__":
    raise SystemExit(main())
