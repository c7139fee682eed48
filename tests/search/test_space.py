from __future__ import annotations

import itertools
import random

import pytest

from search.errors import InvalidInput
from search.space import SearchSpace, SubnetConfig
from tests.search.small import MIXED, SHAPE, SPACE


def everything(space: SearchSpace) -> set[SubnetConfig]:
    genes = space.gene_choices
    return {
        space.decode(dict(zip(genes, values, strict=True)))
        for values in itertools.product(*genes.values())
    }


def test_its_size_counts_each_network_once() -> None:
    space = SPACE.with_choices({"num_heads": (2, 4), "ffn_dim": (32, 64)})
    assert len(everything(space)) == space.num_networks


def test_a_subnet_keeps_the_most_important_layers() -> None:
    space = SPACE.with_layer_order((1, 2, 0))
    genotype = {gene: choices[-1] for gene, choices in space.gene_choices.items()}
    assert space.decode({**genotype, "num_layers": 2}).layers == (1, 2)
    assert space.decode({**genotype, "num_layers": 1}).layers == (1,)


def test_genes_of_dropped_layers_change_nothing() -> None:
    genotype = {gene: choices[0] for gene, choices in SPACE.gene_choices.items()}
    dropped = SPACE.layer_order[-1]
    other = {**genotype, f"ffn_dim_{dropped}": SPACE.ffn_dim[-1]}
    assert SPACE.decode(genotype).fingerprint == SPACE.decode(other).fingerprint


def test_it_contains_what_it_samples_and_nothing_else() -> None:
    rng = random.Random(0)
    assert all(SPACE.contains(SPACE.sample(rng)) for _ in range(50))
    assert SPACE.contains(SPACE.smallest)
    assert SPACE.contains(SPACE.largest)
    odd = SubnetConfig(layers=(0, 1, 2), num_heads=(4, 4, 4), ffn_dim=(64, 64, 63))
    assert not SPACE.contains(odd)


def test_the_default_space_has_four_choices_a_gene_at_most_and_the_whole_model() -> None:
    assert all(len(choices) <= 4 for choices in SPACE.gene_choices.values())
    assert SPACE.largest == SubnetConfig.full(SHAPE)


def test_uniform_networks_have_equal_layers() -> None:
    for subnet in SPACE.uniform():
        assert len(set(subnet.num_heads)) == len(set(subnet.ffn_dim)) == 1
        assert SPACE.contains(subnet)


def test_space_and_subnet_survive_json() -> None:
    assert SearchSpace.from_dict(SPACE.to_dict()) == SPACE
    assert SubnetConfig.from_dict(MIXED.to_dict()) == MIXED


@pytest.mark.parametrize(
    ("gene", "choices"),
    [("num_heads", ()), ("ffn_dim", (64, 32)), ("num_layers", (1, 9)), ("precision", ("fp8",))],
)
def test_choices_that_do_not_fit_are_refused_by_gene(
    gene: str, choices: tuple[object, ...]
) -> None:
    with pytest.raises(InvalidInput, match=f"space.{gene}"):
        SPACE.with_choices({gene: choices})


@pytest.mark.parametrize(
    "parts",
    [
        {"layers": (0, 1), "num_heads": (1,), "ffn_dim": (8, 8)},
        {"layers": (1, 0), "num_heads": (1, 1), "ffn_dim": (8, 8)},
        {"layers": (0,), "num_heads": (1,), "ffn_dim": (8,), "precision": "fp64"},
    ],
)
def test_a_subnet_that_makes_no_sense_is_an_error(parts: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"length|ascend|precision"):
        SubnetConfig(**parts)  # type: ignore[arg-type]
