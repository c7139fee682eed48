from __future__ import annotations

import random

import pytest

from search.genotypes import (
    active_genes,
    all_networks,
    extreme_genotypes,
    random_genotype,
    shrunk,
)
from search.space import SearchSpace, SubnetConfig

PLAIN = SearchSpace(
    num_layers=(1, 2, 3),
    num_heads=(1, 2),
    ffn_dim=(8, 16),
    precision=("fp32", "int8"),
    layer_order=(2, 0, 1),
)
GROUPED = PLAIN.with_choices({"precision_groups": 3, "embed_dim": (16, 32)})


@pytest.mark.parametrize("space", [PLAIN, GROUPED], ids=["one precision", "three groups"])
def test_every_network_of_a_space_is_listed_exactly_once(space: SearchSpace) -> None:
    listed = list(all_networks(space))
    assert len({subnet.fingerprint for _, subnet in listed}) == len(listed) == space.num_networks
    assert all(space.decode(genotype) == subnet for genotype, subnet in listed)
    rng = random.Random(0)
    assert {space.sample(rng) for _ in range(50)} <= {subnet for _, subnet in listed}


def test_genes_of_dropped_layers_are_idle() -> None:
    assert active_genes(PLAIN, 1) == ("precision", "num_heads_2", "ffn_dim_2")
    assert set(PLAIN.gene_choices) - set(active_genes(PLAIN, 3)) == {"num_layers"}
    assert "precision_0" not in active_genes(GROUPED, 1)


def test_the_extremes_are_the_smallest_and_the_largest_network() -> None:
    smallest, largest = extreme_genotypes(GROUPED)
    assert GROUPED.decode(smallest) == GROUPED.smallest
    assert GROUPED.decode(largest) == GROUPED.largest


def num_neurons(subnet: SubnetConfig) -> int:
    return sum(subnet.ffn_dim)


def test_shrinking_stops_at_the_first_network_that_fits() -> None:
    rng = random.Random(1)
    for _ in range(50):
        genotype = random_genotype(PLAIN, rng)
        before = num_neurons(PLAIN.decode(genotype))
        found = shrunk(PLAIN, genotype, rng, lambda s: num_neurons(s) <= 24)
        assert found is not None
        assert num_neurons(PLAIN.decode(found)) <= min(before, 24)
        if before <= 24:
            assert found == genotype


def test_shrinking_gives_up_where_the_smallest_network_does_not_fit() -> None:
    rng = random.Random(1)
    assert shrunk(PLAIN, random_genotype(PLAIN, rng), rng, lambda _: False) is None
