"""The samplers that a search may use, by name.

Optuna's are asked through a study that is filled with the records and thrown away afterwards.
Every gene is the place of its choice, which orders sizes; precisions are categories.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)

from search.evolution import Ask, Sampler
from search.genotypes import Genotype
from search.space import SearchSpace
from search.surrogate_search import propose

# A model's acquisition function is optimized anew for every proposal: 0.3 s and more.
MAX_GP_TRIES_PER_CHILD = 3

optuna.logging.set_verbosity(optuna.logging.WARNING)


def _nsga2(ask: Ask) -> Iterator[Genotype]:
    """Deb et al., IEEE TEC 6(2), 2002."""
    return _proposals(ask, NSGAIISampler(population_size=ask.population, seed=ask.seed))


def _nsga3(ask: Ask) -> Iterator[Genotype]:
    """Deb and Jain, IEEE TEC 18(4), 2014: reference directions, for four objectives and more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = NSGAIIISampler(population_size=ask.population, seed=ask.seed)
    return _proposals(ask, sampler)


def _tpe(ask: Ask) -> Iterator[Genotype]:
    """Ozaki et al., JAIR 73, 2022; what was proposed already counts as bad (constant liar)."""
    return _proposals(ask, TPESampler(seed=ask.seed, multivariate=True, constant_liar=True))


def _gp(ask: Ask) -> Iterator[Genotype]:
    """A Gaussian process for each objective, latency too, and expected hypervolume improvement.

    It models what is known anyway, and needs about half a second a child.
    """
    proposals = _proposals(ask, GPSampler(seed=ask.seed))
    return islice(proposals, MAX_GP_TRIES_PER_CHILD * ask.population)


def _random(ask: Ask) -> Iterator[Genotype]:
    return _proposals(ask, RandomSampler(seed=ask.seed))


SAMPLERS: Mapping[str, Sampler] = {
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "tpe": _tpe,
    "gp": _gp,
    "random": _random,
    "surrogate": propose,
}


def _proposals(ask: Ask, sampler: BaseSampler) -> Iterator[Genotype]:
    """What `sampler` makes of the records, one proposal after another.

    A proposal that was turned away stays pending, like one under evaluation: samplers with a
    model keep away from it, the others never look.
    """
    genes = ask.task.space.gene_choices
    distributions = _distributions(ask.task.space)
    study = optuna.create_study(
        directions=[objective.direction for objective in ask.task.objectives], sampler=sampler
    )
    for record in ask.history:
        study.add_trial(
            optuna.create_trial(
                params=_encoded(record.genotype, genes),
                distributions=distributions,
                values=list(record.values),
                system_attrs=_generation_mark(sampler, record.generation),
            )
        )
    while True:
        yield _decoded(study.ask(distributions).params, genes)


def _generation_mark(sampler: BaseSampler, generation: int) -> dict[str, int]:
    """How a genetic algorithm of Optuna knows which trials to choose the next parents from."""
    if isinstance(sampler, NSGAIISampler | NSGAIIISampler):
        return {sampler._get_generation_key(): generation}
    return {}


def _distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    return {
        gene: CategoricalDistribution(choices)
        if isinstance(choices[0], str)
        else IntDistribution(0, len(choices) - 1)
        for gene, choices in space.gene_choices.items()
    }


def _encoded(genotype: Mapping[str, Any], genes: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {
        gene: value if isinstance(value, str) else genes[gene].index(value)
        for gene, value in genotype.items()
    }


def _decoded(params: Mapping[str, Any], genes: Mapping[str, Sequence[Any]]) -> Genotype:
    return {
        gene: value if isinstance(value, str) else genes[gene][value]
        for gene, value in params.items()
    }
