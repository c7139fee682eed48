"""What each part of the supernet's training gives, and what a larger space costs.

The small GPT of `small_language`, one teacher, and supernets of as many optimizer steps, each of
which trains three subnets. First reordering x distillation x sampling, then the whole recipe in
spaces of three sizes. All are judged by the same subnets, which every space contains: the mean
log-likelihood of a byte that they inherit, before any training of their own.

python -m benchmarks.ablation [--quick] [--jobs N]
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

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
from benchmarks.small_language import SHAPE, SPACE, log_likelihood
from search.space import SearchSpace, SubnetConfig
from search.training.sampling import Sampling

SEEDS = (0, 1)
NUM_SUBNETS = 16
SMALL = replace(SPACE, num_layers=(2, 4), num_heads=(2, 4), ffn_dim=(64, 256))
WIDE = replace(
    SPACE,
    num_heads=(1, 2, 3, 4),
    ffn_dim=tuple(range(32, SHAPE.ffn_dim + 1, 32)),
    embed_dim=(32, 48, 64),
)
SAMPLINGS = {"sandwich": Sampling(), "uniform": Sampling(strategy="uniform", num_random=3)}


@dataclass(frozen=True, slots=True)
class Task:
    """One training, for a process of its own."""

    folder: Path
    lengths: Lengths
    recipe: Recipe
    space: SearchSpace
    subnets: tuple[SubnetConfig, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Log-likelihoods of the subnets that all have in common, in nats."""

    qualities: list[float]
    extremes: Extremes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="little training, nothing kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lengths = QUICK if arguments.quick else Lengths()
        figures = measure(Path(folder), lengths, jobs=arguments.jobs)
    report_result("ablation", figures, keep=not arguments.quick)
    return 0


def measure(folder: Path, lengths: Lengths, *, jobs: int) -> dict[str, Any]:
    watch = Stopwatch()
    study = Study(folder, lengths)
    layer_order = study.prepare(SPACE).layer_order
    spaces = {
        name: space.with_layer_order(layer_order)
        for name, space in (("small", SMALL), ("medium", SPACE), ("wide", WIDE))
    }
    subnets = _common_subnets(spaces["small"])
    trainings = {name: (recipe, spaces["medium"]) for name, recipe in recipes().items()}
    trainings |= {f"space {name}": (Recipe(), spaces[name]) for name in ("small", "wide")}
    tasks = [
        Task(folder, lengths, recipe, space, subnets, seed)
        for recipe, space in trainings.values()
        for seed in SEEDS
    ]
    outcomes = list(in_parallel(_train, tasks, jobs))
    found = {
        name: _figures(outcomes[i * len(SEEDS) : (i + 1) * len(SEEDS)])
        for i, name in enumerate(trainings)
    }
    found["space medium"] = found[_name(Recipe())]
    return {
        "steps": asdict(lengths),
        "networks": {name: space.num_networks for name, space in spaces.items()},
        "teacher": log_likelihood(study.teacher(), study.splits.held),
        "trainings": found,
        "effects": _effects(found),
        "seconds": round(watch.seconds),
    }


def recipes() -> dict[str, Recipe]:
    """Every combination of the three parts, by a name that lists them."""
    combined = [
        Recipe(is_reordered=is_reordered, teacher=teacher, sampling=sampling)
        for is_reordered, teacher, sampling in itertools.product(
            (True, False), ("fixed", "none"), SAMPLINGS.values()
        )
    ]
    return {_name(recipe): recipe for recipe in combined}


def _name(recipe: Recipe) -> str:
    order = "reordered" if recipe.is_reordered else "as it was"
    teacher = "distilled" if recipe.teacher == "fixed" else "labels"
    return f"{order}, {teacher}, {recipe.sampling.strategy}"


def _common_subnets(space: SearchSpace) -> tuple[SubnetConfig, ...]:
    """Of the smallest space, drawn layer by layer; none of its extremes."""
    rng = random.Random(1)
    chosen: list[SubnetConfig] = []
    while len(chosen) < NUM_SUBNETS:
        subnet = space.sample(rng)
        if subnet not in (space.smallest, space.largest, *chosen):
            chosen.append(subnet)
    return tuple(chosen)


def _train(task: Task) -> Outcome:
    study = Study(task.folder, task.lengths)
    watch = Stopwatch()
    model = study.supernet(task.space, task.recipe, task.seed)
    extremes = extremes_of(study, model, task.space, watch.seconds)
    qualities = [log_likelihood(model, study.splits.held, subnet) for subnet in task.subnets]
    print(
        f"{task.space.num_networks} networks, {_name(task.recipe)}, seed {task.seed}: "
        f"mean {mean(qualities):.4f}, {extremes}",
        file=sys.stderr,
        flush=True,
    )
    return Outcome(qualities, extremes)


def _figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "mean": mean(mean(outcome.qualities) for outcome in outcomes),
        "mean_by_seed": [mean(outcome.qualities) for outcome in outcomes],
        "worst": mean(min(outcome.qualities) for outcome in outcomes),
        "largest": mean(outcome.extremes.largest for outcome in outcomes),
        "smallest": mean(outcome.extremes.smallest for outcome in outcomes),
        "seconds": mean(outcome.extremes.seconds for outcome in outcomes),
    }


def _effects(found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Nats that each part adds to the mean subnet, over all settings of the other two."""
    pairs = {
        "reordering": ("reordered", "as it was"),
        "distillation": ("distilled", "labels"),
        "sandwich": ("sandwich", "uniform"),
    }
    return {
        part: mean(
            figures["mean"] - found[name.replace(with_it, without)]["mean"]
            for name, figures in found.items()
            if with_it in name.split(", ")
        )
        for part, (with_it, without) in pairs.items()
    }


if __name__ == "__main__":
    sys.exit(main())
