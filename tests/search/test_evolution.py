"""A generation follows from the records before it, holds only new feasible networks, and ends."""

from __future__ import annotations

import random

import pytest

from search.evolution import Ask, EvaluatedGenotype, ask_generation
from search.genotypes import all_networks, random_genotype
from search.objectives import to_losses
from search.pareto import hypervolume
from search.samplers import SAMPLERS
from search.space import SearchSpace
from tests.search.landscape import Landscape, search

SPACE = SearchSpace(
    num_layers=(1, 2, 3, 4),
    num_heads=(1, 2, 4),
    ffn_dim=(16, 32, 64),
    precision=("fp32", "int8"),
    layer_order=(3, 0, 2, 1),
)
TINY = SearchSpace(
    num_layers=(1, 2),
    num_heads=(1, 2),
    ffn_dim=(8,),
    precision=("fp32", "int8"),
    layer_order=(1, 0),
)
LANDSCAPE = Landscape(SPACE)
NSGA2 = SAMPLERS["nsga2"]


def run(
    generations: int, history: list[EvaluatedGenotype], *, limit_ms: float = 1e9, seed: int = 3
) -> list[EvaluatedGenotype]:
    return search(
        LANDSCAPE,
        LANDSCAPE.task(limit_ms=limit_ms),
        NSGA2,
        generations=generations,
        population=8,
        seed=seed,
        history=history,
    )


def fingerprints(space: SearchSpace, records: list[EvaluatedGenotype]) -> list[str]:
    return [space.decode(record.genotype).fingerprint for record in records]


def test_a_resumed_search_asks_the_same_children_at_every_kill_point() -> None:
    whole = run(6, [])
    for killed_after in range(1, 6):
        assert run(6, [r for r in whole if r.generation < killed_after]) == whole


def test_another_seed_is_another_search() -> None:
    assert run(2, []) != run(2, [], seed=4)


def test_inheriting_from_the_front_beats_chance() -> None:
    def volume(sampler: str, seed: int) -> float:
        task = LANDSCAPE.task()
        found = search(
            LANDSCAPE, task, SAMPLERS[sampler], generations=10, population=10, seed=seed
        )
        losses = to_losses(task.objectives, [record.values for record in found])
        return hypervolume(losses.tolist(), (6.0, -0.5))

    seeds = range(4)
    assert sum(volume("nsga2", s) for s in seeds) > sum(volume("random", s) for s in seeds)


def test_no_network_is_evaluated_twice() -> None:
    found = fingerprints(SPACE, run(12, []))
    assert len(set(found)) == len(found) == 96


def test_every_child_is_feasible_even_when_hardly_anything_is() -> None:
    feasible = sorted(LANDSCAPE.latency_ms(subnet) for _, subnet in all_networks(SPACE))[:20]
    history = run(2, [], limit_ms=feasible[-1])
    assert len(history) == 16
    assert all(record.values[0] <= feasible[-1] for record in history)


def test_nothing_feasible_is_an_empty_generation() -> None:
    landscape = Landscape(TINY)
    task = landscape.task(limit_ms=0.0)
    assert search(landscape, task, NSGA2, generations=2, population=4, seed=0) == []


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random", "surrogate"])
def test_a_small_space_is_used_up_to_its_last_network_and_then_ends(sampler: str) -> None:
    landscape = Landscape(TINY)
    history = search(
        landscape, landscape.task(), SAMPLERS[sampler], generations=9, population=5, seed=1
    )
    everything = {subnet.fingerprint for _, subnet in all_networks(TINY)}
    assert sorted(fingerprints(TINY, history)) == sorted(everything)


def test_a_sampler_that_repeats_itself_is_helped_out() -> None:
    def stubborn(ask: Ask):  # type: ignore[no-untyped-def]
        genotype = random_genotype(ask.task.space, random.Random(0))
        while True:
            yield genotype

    children = ask_generation(LANDSCAPE.task(), [], stubborn, generation=0, population=8, seed=0)
    assert len({child.subnet.fingerprint for child in children}) == 8


def test_values_run_parallel_to_the_objectives() -> None:
    task = LANDSCAPE.task()
    smallest = SPACE.smallest
    values = task.values_of(smallest, {"quality": 0.75})
    assert values == (LANDSCAPE.latency_ms(smallest), 0.75)
