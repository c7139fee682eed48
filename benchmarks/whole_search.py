"""A search from its first generation to its last, in one process. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search.evolution import EvaluatedGenotype, SearchTask, ask_generation
from search.objectives import QUALITY
from search.samplers import SAMPLERS
from search.space import SubnetConfig

QualitiesOf = Callable[[Sequence[SubnetConfig]], Sequence[float]]
"""Of the children of a generation, in their order."""


def search_whole(
    task: SearchTask,
    sampler: str,
    qualities_of: QualitiesOf,
    *,
    population: int,
    generations: int,
    seed: int,
) -> list[tuple[SubnetConfig, EvaluatedGenotype]]:
    """All that were evaluated, in the order in which they were."""
    found: list[tuple[SubnetConfig, EvaluatedGenotype]] = []
    for generation in range(generations):
        children = ask_generation(
            task,
            [record for _, record in found],
            SAMPLERS[sampler],
            generation=generation,
            population=population,
            seed=seed,
        )
        qualities = qualities_of([child.subnet for child in children])
        for index, (child, quality) in enumerate(zip(children, qualities, strict=True)):
            values = task.values_of(child.subnet, {QUALITY.name: quality})
            record = EvaluatedGenotype(
                generation=generation, index=index, genotype=child.genotype, values=values
            )
            found.append((child.subnet, record))
    return found
