"""A search, one generation at a time, rebuilt from records each time.

There is no live study to lose: a generation's children follow from the job's seed, the number of
the generation and the records of the generations before it. A killed search that asks again gets
the same children, whichever sampler proposes them.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search.genotypes import Genotype, all_networks, random_genotype, shrunk
from search.objectives import Floats, Objective
from search.space import SearchSpace, SubnetConfig

MAX_REJECTED_IN_A_ROW = 60
# Listing a space this large takes a second; a larger one is never exhausted.
MAX_LISTED_NETWORKS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchTask:
    """What is searched, and for what.

    Attributes:
        known: values (networks, objectives) of those objectives that need no evaluation, in
            their order.
        are_feasible: which of some networks may be evaluated at all, say keep the loosest budget.
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    known: Callable[[Sequence[SubnetConfig]], Floats]
    are_feasible: Callable[[Sequence[SubnetConfig]], npt.NDArray[np.bool_]]

    def is_feasible(self, subnet: SubnetConfig) -> bool:
        return bool(self.are_feasible([subnet])[0])

    def values_of(self, subnet: SubnetConfig, learnt: Mapping[str, float]) -> tuple[float, ...]:
        """Parallel to the objectives; `learnt` has by name what the evaluation told."""
        known = iter(self.known([subnet])[0])
        return tuple(
            float(learnt[objective.name] if objective.is_learnt else next(known))
            for objective in self.objectives
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedGenotype:
    """What the search remembers of one child; `values` run parallel to the task's objectives."""

    generation: int
    index: int
    genotype: Mapping[str, Any]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Child:
    genotype: Genotype
    subnet: SubnetConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What a sampler is given: the records are in the order of generation and index.

    `seed` differs from generation to generation.
    """

    task: SearchTask
    history: tuple[EvaluatedGenotype, ...]
    generation: int
    population: int
    seed: int


Sampler = Callable[[Ask], Iterator[Genotype]]
"""Proposes genotypes, best first, for as long as it is asked to: some may be infeasible or seen
before. Everything it does follows from what it is given."""


def ask_generation(
    task: SearchTask,
    history: Sequence[EvaluatedGenotype],
    sampler: Sampler,
    *,
    generation: int,
    population: int,
    seed: int,
) -> list[Child]:
    """The children of a generation, feasible and never evaluated before, in a fixed order.

    What is infeasible or was seen costs a try and no evaluation. Where a sampler proposes
    too little else, random networks made cheaper until they are feasible fill the places; in a
    small space at last whatever remains. Fewer than `population` children, or none, mean that
    the space is used up.

    Args:
        history: every evaluated child of the generations before this one, in any order.
    """
    ordered = sorted(history, key=lambda record: (record.generation, record.index))
    ask = Ask(
        task=task,
        history=tuple(ordered),
        generation=generation,
        population=population,
        seed=derived_seed(seed, generation),
    )
    accepted = _Accepted(ask)
    accepted.take(sampler(ask), max_rejected=MAX_REJECTED_IN_A_ROW)
    accepted.take(_cheap_enough(ask), max_rejected=MAX_REJECTED_IN_A_ROW)
    if task.space.num_networks <= MAX_LISTED_NETWORKS:
        accepted.take((genotype for genotype, _ in all_networks(task.space)))
    return accepted.children


class _Accepted:
    """Children of a generation so far; takes in what is feasible and new, up to the population."""

    def __init__(self, ask: Ask) -> None:
        self.children: list[Child] = []
        self._ask = ask
        space = ask.task.space
        self._seen = {space.decode(record.genotype).fingerprint for record in ask.history}

    def take(self, proposals: Iterator[Genotype], *, max_rejected: float = math.inf) -> None:
        """Until the generation is full, or `max_rejected` in a row were of no use."""
        num_rejected = 0
        task = self._ask.task
        while len(self.children) < self._ask.population and num_rejected < max_rejected:
            genotype = next(proposals, None)
            if genotype is None:
                return
            subnet = task.space.decode(genotype)
            num_rejected += 1
            if subnet.fingerprint not in self._seen and task.is_feasible(subnet):
                self._seen.add(subnet.fingerprint)
                self.children.append(Child(genotype, subnet))
                num_rejected = 0


def derived_seed(seed: int, generation: int) -> int:
    digest = hashlib.sha256(f"{seed}/{generation}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _cheap_enough(ask: Ask) -> Iterator[Genotype]:
    """Random networks, made cheaper until they are feasible; nothing where none is."""
    rng = random.Random(ask.seed)
    space = ask.task.space
    while found := shrunk(space, random_genotype(space, rng), rng, ask.task.is_feasible):
        yield found
