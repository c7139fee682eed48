from __future__ import annotations

from functools import partial

from search.baselines import hardware_agnostic, uniform_networks
from search.costs import flops
from search.objectives import FLOPS, QUALITY
from search.samplers import SAMPLERS
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig
from tests.search.landscape import Landscape, search

SHAPE = ModelShape(
    family="bert",
    num_layers=4,
    embed_dim=32,
    num_heads=4,
    head_dim=8,
    ffn_dim=64,
    vocab_size=100,
    max_seq_len=64,
    num_token_types=2,
    num_labels=2,
)
SPACE = SearchSpace.for_shape(SHAPE)
LANDSCAPE = Landscape(SPACE)


def is_uniform(subnet: SubnetConfig) -> bool:
    return len(set(subnet.num_heads)) == len(set(subnet.ffn_dim)) == 1


def test_uniform_networks_are_alike_in_all_layers_and_feasible() -> None:
    everything = uniform_networks(LANDSCAPE.task(), 1000)
    assert set(everything) == set(SPACE.uniform())
    feasible = uniform_networks(LANDSCAPE.task(limit_ms=2.0), 1000)
    assert set(feasible) == {s for s in SPACE.uniform() if LANDSCAPE.latency_ms(s) <= 2.0}


def test_a_capped_choice_of_uniform_networks_spreads_over_the_latencies() -> None:
    latencies = [LANDSCAPE.latency_ms(s) for s in uniform_networks(LANDSCAPE.task(), 1000)]
    chosen = uniform_networks(LANDSCAPE.task(), 10)
    assert len(set(chosen)) == 10
    assert all(is_uniform(subnet) for subnet in chosen)
    found = [LANDSCAPE.latency_ms(subnet) for subnet in chosen]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (min(latencies), max(latencies))


def test_nothing_feasible_is_no_uniform_network() -> None:
    assert uniform_networks(LANDSCAPE.task(limit_ms=0.0), 10) == []


def test_the_agnostic_search_counts_operations_and_nothing_else() -> None:
    flops_of = partial(flops, SHAPE, seq_len=16)
    task = hardware_agnostic(LANDSCAPE.task(), SHAPE, flops_of, budget_ratio=0.5)
    assert task.objectives == (FLOPS, QUALITY)
    full = flops_of(SubnetConfig.full(SHAPE))
    found = search(LANDSCAPE, task, SAMPLERS["nsga2"], generations=3, population=8, seed=0)
    for record in found:
        subnet = SPACE.decode(record.genotype)
        assert record.values == (
            float(flops_of(subnet)),
            LANDSCAPE.quality(subnet),
        )
        assert record.values[0] <= 0.5 * full
    int8 = [SPACE.decode(record.genotype).precision == "int8" for record in found]
    assert 0 < sum(int8) < len(int8), "a precision costs no operation and saves none"
