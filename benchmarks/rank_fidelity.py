"""Whether a supernet ranks subnets as they rank when each is trained on its own.

24 subnets of a small GPT are cut out of the trained teacher and distilled by themselves, twice;
then each is evaluated with the weights that it inherits from supernets trained in five ways.
Half of the subnets are uniform ones of all sizes, half are drawn layer by layer: those are of
about one size, and hard to rank. `ceiling` is Kendall's tau between the two trainings of their
own: no supernet can be expected to agree more than they do with each other.

The largest subnet is held against the teacher trained on plainly for as many steps.

python -m benchmarks.rank_fidelity [--quick] [--jobs N]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau

from benchmarks.common import report_result
from benchmarks.elastic import (
    QUICK,
    Extremes,
    Lengths,
    Recipe,
    Stopwatch,
    Study,
    extremes_of,
    in_parallel,
    mean,
)
from benchmarks.small_language import (
    SPACE,
    accuracy,
    chosen_subnets,
    log_likelihood,
    num_params_of_layers,
)
from search.space import SearchSpace, SubnetConfig
from search.training.sampling import Sampling

NUM_SUBNETS = 24
SEEDS = (0, 1)
# Each with three subnets a step.
RECIPES = {
    "uniform": Recipe(
        sampling=Sampling(strategy="uniform", num_random=3), teacher="none", is_reordered=False
    ),
    "sandwich": Recipe(teacher="none", is_reordered=False),
    "sandwich + distillation": Recipe(is_reordered=False),
    "sandwich + distillation + reordering": Recipe(),
    "the same, choices drawn with putting back": Recipe(sampling=Sampling(is_balanced=False)),
    "the same, widths first": Recipe(sampling=Sampling(width_first=0.3)),
    "the same, taught in place": Recipe(teacher="inplace"),
    "the same, attention relations too": Recipe(relations=1.0),
}


@dataclass(frozen=True, slots=True)
class Task:
    """One training, for a process of its own."""

    folder: Path
    lengths: Lengths
    space: SearchSpace
    subnets: tuple[SubnetConfig, ...]
    name: str
    seed: int


@dataclass(frozen=True, slots=True)
class Inherited:
    """Log-likelihoods of the subnets with a supernet's weights."""

    qualities: list[float]
    extremes: Extremes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="little training, nothing kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(
            Path(folder),
            QUICK if arguments.quick else Lengths(),
            num_subnets=6 if arguments.quick else NUM_SUBNETS,
            jobs=arguments.jobs,
        )
    report_result("rank_fidelity", figures, keep=not arguments.quick)
    return 0


def measure(folder: Path, lengths: Lengths, *, num_subnets: int, jobs: int) -> dict[str, Any]:
    watch = Stopwatch()
    study = Study(folder, lengths)
    space = study.prepare(SPACE)
    _say(f"teacher trained, {watch.seconds:.0f} s")
    subnets = tuple(chosen_subnets(space, num_subnets))

    def tasks(*names: str) -> list[Task]:
        return [Task(folder, lengths, space, subnets, n, s) for n in names for s in SEEDS]

    alone = list(in_parallel(_train_alone, tasks("alone"), jobs))
    _say(f"{num_subnets} subnets trained alone, {watch.seconds:.0f} s")
    plain = list(in_parallel(_continue_plainly, tasks("plain"), jobs))
    inherited = list(in_parallel(_train_supernet, tasks(*RECIPES), jobs))
    _say(f"{len(inherited)} supernets trained, {watch.seconds:.0f} s")
    truth = [mean(values) for values in zip(*alone, strict=True)]
    per_recipe = [inherited[i : i + len(SEEDS)] for i in range(0, len(inherited), len(SEEDS))]
    sizes = [float(num_params_of_layers(subnet)) for subnet in subnets]
    teacher = study.teacher()
    return {
        "steps": asdict(lengths),
        "space": space.to_dict(),
        "subnets": [subnet.to_dict() for subnet in subnets],
        "alone": alone,
        "ceiling": _taus(alone[0], alone[1]),
        "parameters_alone": _taus(sizes, truth),
        "teacher_accuracy": accuracy(teacher, study.splits.held),
        "plain_accuracy": mean(share for share, _ in plain),
        "plain_log_likelihood": mean(value for _, value in plain),
        "recipes": {
            name: _figures(found, truth, mean(share for share, _ in plain))
            for name, found in zip(RECIPES, per_recipe, strict=True)
        },
        "seconds": round(watch.seconds),
    }


def _figures(found: list[Inherited], truth: list[float], plain: float) -> dict[str, Any]:
    by_seed = [_taus(supernet.qualities, truth) for supernet in found]
    return {
        **{key: mean(taus[key] for taus in by_seed) for key in by_seed[0]},
        "tau_by_seed": [taus["tau"] for taus in by_seed],
        "gap_to_alone": mean(mean(truth) - mean(supernet.qualities) for supernet in found),
        # Percentage points of next-byte accuracy; negative: the largest lost.
        "largest_minus_plain_points": 100
        * mean(supernet.extremes.largest_accuracy - plain for supernet in found),
        "largest": mean(supernet.extremes.largest for supernet in found),
        "smallest": mean(supernet.extremes.smallest for supernet in found),
        "seconds": mean(supernet.extremes.seconds for supernet in found),
        "inherited": [supernet.qualities for supernet in found],
    }


def _taus(first: list[float], second: list[float]) -> dict[str, float]:
    """Kendall's tau of all subnets, and of the half that was drawn layer by layer."""
    drawn = len(first) // 2
    return {
        "tau": float(kendalltau(first, second).statistic),
        "tau_of_drawn": float(kendalltau(first[drawn:], second[drawn:]).statistic),
    }


def _train_alone(task: Task) -> list[float]:
    study = Study(task.folder, task.lengths)
    qualities = []
    for subnet in task.subnets:
        qualities.append(study.alone(subnet, task.seed))
        _say(f"alone, seed {task.seed}: {subnet.fingerprint} {qualities[-1]:.4f}")
    return qualities


def _continue_plainly(task: Task) -> tuple[float, float]:
    """Accuracy and log-likelihood."""
    study = Study(task.folder, task.lengths)
    model = study.continued(task.seed)
    held = study.splits.held
    return accuracy(model, held), log_likelihood(model, held)


def _train_supernet(task: Task) -> Inherited:
    study = Study(task.folder, task.lengths)
    watch = Stopwatch()
    model = study.supernet(task.space, RECIPES[task.name], task.seed)
    extremes = extremes_of(study, model, task.space, watch.seconds)
    qualities = [log_likelihood(model, study.splits.held, subnet) for subnet in task.subnets]
    _say(f"{task.name}, seed {task.seed}: {extremes}, mean {mean(qualities):.4f}")
    return Inherited(qualities, extremes)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
