"""Genotypes of a space, one choice for each gene: drawing, shrinking and listing them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

from search.space import SearchSpace, SubnetConfig

Genotype = dict[str, Any]
IsFeasible = Callable[[SubnetConfig], bool]
DEPTH = "num_layers"


def random_genotype(space: SearchSpace, rng: random.Random) -> Genotype:
    return {gene: rng.choice(choices) for gene, choices in space.gene_choices.items()}


def extreme_genotypes(space: SearchSpace) -> tuple[Genotype, Genotype]:
    """Those of the smallest and of the largest network."""
    cheap = cheapest_first(space)
    return (
        {gene: choices[0] for gene, choices in cheap.items()},
        {gene: choices[-1] for gene, choices in cheap.items()},
    )


def cheapest_first(space: SearchSpace) -> dict[str, tuple[Any, ...]]:
    """Every gene's choices from the cheapest on: sizes ascend, precisions descend."""
    return {
        gene: choices[::-1] if isinstance(choices[0], str) else choices
        for gene, choices in space.gene_choices.items()
    }


def shrunk(
    space: SearchSpace, genotype: Genotype, rng: random.Random, is_feasible: IsFeasible
) -> Genotype | None:
    """The genotype with random genes made cheaper, one step each, until it is feasible.

    None where the smallest network is not feasible either. Unlike drawing until one fits, this
    ends after as many tries as there are steps, however tight the budget is.
    """
    choices = cheapest_first(space)
    places = {gene: choices[gene].index(value) for gene, value in genotype.items()}
    while True:
        found = {gene: choices[gene][place] for gene, place in places.items()}
        if is_feasible(space.decode(found)):
            return found
        reducible = [gene for gene, place in places.items() if place]
        if not reducible:
            return None
        places[rng.choice(reducible)] -= 1


def active_genes(space: SearchSpace, depth: int) -> tuple[str, ...]:
    """Genes that change a network of `depth` layers; those of dropped layers do not."""
    choices = space.gene_choices
    base = {gene: values[0] for gene, values in choices.items()} | {DEPTH: depth}
    network = space.decode(base)
    return tuple(
        gene
        for gene, values in choices.items()
        if gene != DEPTH and any(space.decode(base | {gene: value}) != network for value in values)
    )


def all_networks(space: SearchSpace) -> Iterator[tuple[Genotype, SubnetConfig]]:
    """Every distinct network once, shallow ones first; idle genes have their first choice."""
    choices = space.gene_choices
    first = {gene: values[0] for gene, values in choices.items()}
    for depth in space.num_layers:
        genes = active_genes(space, depth)
        for values in itertools.product(*(choices[gene] for gene in genes)):
            genotype = first | {DEPTH: depth} | dict(zip(genes, values, strict=True))
            yield genotype, space.decode(genotype)
