from __future__ import annotations

import numpy as np

from search.evolution import SearchTask
from search.objectives import to_losses
from search.pareto import hypervolume
from search.samplers import SAMPLERS
from search.space import SearchSpace
from tests.search.landscape import Landscape, search, with_size

SPACE = SearchSpace(
    num_layers=(2, 3, 4, 6),
    num_heads=(3, 6, 9, 12),
    ffn_dim=(384, 768, 1152, 1536),
    precision=("fp32", "int8"),
    layer_order=(5, 0, 2, 4, 1, 3),
)


def volume(landscape: Landscape, task: SearchTask, sampler: str, *, generations: int) -> float:
    """Of what a search finds, up to a fixed reference."""
    found = search(
        landscape, task, SAMPLERS[sampler], generations=generations, population=12, seed=4
    )
    losses = to_losses(task.objectives, [record.values for record in found])
    reference = [8.0, *[20_000.0] * (losses.shape[1] - 2), -0.5]
    return hypervolume(losses.tolist(), reference)


def test_it_finds_with_few_evaluations_what_evolution_needs_twice_as_many_for() -> None:
    few, many = [], []
    for seed in range(2):
        landscape = Landscape(SPACE, seed=seed)
        few.append(volume(landscape, landscape.task(), "surrogate", generations=4))
        many.append(volume(landscape, landscape.task(), "nsga2", generations=8))
    assert np.mean(few) > np.mean(many)


def test_a_third_objective_that_is_known_costs_it_nothing() -> None:
    landscape = Landscape(SPACE, seed=3)
    task = with_size(landscape.task())
    learnt = volume(landscape, task, "surrogate", generations=4)
    assert learnt > volume(landscape, task, "random", generations=8)


def test_it_stays_within_what_is_feasible() -> None:
    landscape = Landscape(SPACE, seed=1)
    found = search(
        landscape,
        landscape.task(limit_ms=2.0),
        SAMPLERS["surrogate"],
        generations=3,
        population=10,
        seed=0,
    )
    assert len(found) == 30
    assert max(record.values[0] for record in found) <= 2.0


def test_its_first_generation_spans_the_space() -> None:
    landscape = Landscape(SPACE, seed=1)
    first = search(
        landscape, landscape.task(), SAMPLERS["surrogate"], generations=1, population=12, seed=0
    )
    networks = {SPACE.decode(record.genotype) for record in first}
    assert {SPACE.smallest, SPACE.largest} <= networks
    assert {subnet.num_layers for subnet in networks} == {2, 3, 4, 6}
