"""NSGA-II by Optuna's ask and tell, one generation at a time, rebuilt from records each time.

There is no live study to lose: a generation's children follow from the job's seed, the number of
the generation and the records of the generations before it. A killed search that asks again gets
the same children.
"""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import NSGAIISampler
from optuna.trial import TrialState

from search.space import SearchSpace, SubnetConfig

MAX_TRIES_PER_CHILD = 60

IsFeasible = Callable[[SubnetConfig], bool]

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedGenotype:
    """What the search remembers of one child: its genes, and the two objectives' values."""

    generation: int
    genotype: Mapping[str, Any]
    latency_ms: float
    quality: float


@dataclass(frozen=True, slots=True)
class Child:
    genotype: dict[str, Any]
    subnet: SubnetConfig


def ask_generation(
    space: SearchSpace,
    history: Sequence[EvaluatedGenotype],
    *,
    generation: int,
    population: int,
    seed: int,
    is_feasible: IsFeasible,
) -> list[Child]:
    """The `population` children of a generation, all feasible, in a fixed order.

    Optuna's constraints are soft, so an infeasible child is turned away here, before it costs an
    evaluation. Where a child takes more than `MAX_TRIES_PER_CHILD` tries the smallest network
    stands in: the loop ends whatever the budget.

    Args:
        history: every evaluated child of the generations before this one, in their order.
        is_feasible: whether a subnet may keep the loosest budget.
    """
    study = _rebuild(space, history, population, derived_seed(seed, generation))
    distributions = _distributions(space)
    children: list[Child] = []
    tries = 0
    while len(children) < population:
        trial = study.ask(distributions)
        subnet = space.decode(trial.params)
        if not is_feasible(subnet):
            study.tell(trial, state=TrialState.FAIL)
            tries += 1
            if tries < population * MAX_TRIES_PER_CHILD:
                continue
            children.append(_smallest(space))
            continue
        children.append(Child(dict(trial.params), subnet))
    return children


def random_subnets(
    space: SearchSpace, count: int, *, seed: int, is_feasible: IsFeasible
) -> list[SubnetConfig]:
    """The baseline: as many feasible networks drawn uniformly over the genes."""
    rng = random.Random(derived_seed(seed, -1))
    subnets: list[SubnetConfig] = []
    for _ in range(count):
        tries = (space.sample(rng) for _ in range(MAX_TRIES_PER_CHILD))
        subnets.append(next((s for s in tries if is_feasible(s)), space.smallest))
    return subnets


def derived_seed(seed: int, generation: int) -> int:
    digest = hashlib.sha256(f"{seed}/{generation}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _rebuild(
    space: SearchSpace, history: Iterable[EvaluatedGenotype], population: int, seed: int
) -> optuna.Study:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = NSGAIISampler(population_size=population, seed=seed)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    distributions = _distributions(space)
    for record in history:
        study.add_trial(
            optuna.create_trial(
                params=dict(record.genotype),
                distributions=distributions,
                values=[record.latency_ms, record.quality],
                # How NSGA-II knows which trials to choose the next parents from.
                system_attrs={NSGAIISampler._get_generation_key(): record.generation},
            )
        )
    return study


def _distributions(space: SearchSpace) -> dict[str, Any]:
    return {gene: CategoricalDistribution(choices) for gene, choices in space.gene_choices.items()}


def _smallest(space: SearchSpace) -> Child:
    genotype = {gene: choices[0] for gene, choices in space.gene_choices.items()}
    genotype["precision"] = space.smallest.precision
    return Child(genotype, space.decode(genotype))
