"""What a stranger may ask for: every size and choice is checked by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from predictors.bounds import check_subnet, read_shape
from search.errors import InvalidInput
from search.space import SubnetConfig
from tests.search.families import RARE, SHAPES


@pytest.mark.parametrize("name", [*SHAPES, *RARE])
def test_every_shape_survives_json(name: str) -> None:
    shape = {**SHAPES, **RARE}[name]
    assert read_shape(shape.to_dict()) == shape


def test_what_is_left_out_is_as_in_bert() -> None:
    shape = SHAPES["bert"]
    needed = ("family", "num_layers", "embed_dim", "num_heads", "head_dim", "ffn_dim")
    needed += ("vocab_size", "max_seq_len", "num_token_types", "num_labels")
    assert read_shape({name: getattr(shape, name) for name in needed}) == shape


@pytest.mark.parametrize(
    ("name", "changes", "field"),
    [
        ("bert", {"family": "rnn"}, "family"),
        ("bert", {"family": 3}, "family"),
        ("bert", {"num_layers": 0}, "num_layers"),
        ("bert", {"num_layers": 10**9}, "num_layers"),
        ("bert", {"embed_dim": "32"}, "embed_dim"),
        ("bert", {"vocab_size": 0}, "vocab_size"),
        ("bert", {"is_causal": 1}, "is_causal"),
        ("bert", {"norm": "batch"}, "norm"),
        ("bert", {"task": "translation"}, "task"),
        ("bert", {"activation": "relu"}, "activation"),
        ("bert", {"norm_eps": 2.0}, "norm_eps"),
        ("bert", {"norm_eps": float("nan")}, "norm_eps"),
        ("bert", {"surprise": 1}, "surprise"),
        ("bert", {"attention": "sparse"}, "attention"),
        ("gpt2", {"attention": "linear"}, "attention"),
        ("bert", {"ffn_rank": -1}, "ffn_rank"),
        ("bert", {"layers_per_group": 0}, "layers_per_group"),
        ("llama", {"queries_per_group": 3}, "queries_per_group"),
        ("llama", {"queries_per_group": 0}, "queries_per_group"),
        ("vit", {"patch_size": 3}, "patch_size"),
        ("vit", {"num_channels": 0}, "patch_size"),
        ("vit", {"num_prefix_tokens": 0}, "max_seq_len"),
        ("vit", {"max_seq_len": 9}, "max_seq_len"),
    ],
)
def test_what_no_network_can_have_is_named(name: str, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_shape(SHAPES[name].to_dict() | changes)
    assert caught.value.field == f"shape.{field}"


FULL = SubnetConfig.full(SHAPES["llama"])


@pytest.mark.parametrize(
    ("subnet", "field"),
    [
        (SubnetConfig(layers=(), num_heads=(), ffn_dim=()), "layers"),
        (replace(FULL, layers=(0, 1, 3)), "layers[2]"),
        (replace(FULL, num_heads=(2, 2, 3)), "num_heads[2]"),
        (replace(FULL, num_heads=(2, 8, 2)), "num_heads[1]"),
        (replace(FULL, ffn_dim=(64, 0, 64)), "ffn_dim[1]"),
        (replace(FULL, embed_dim=33), "embed_dim"),
        (replace(FULL, embed_dim=0), "embed_dim"),
    ],
)
def test_a_subnet_larger_than_its_model_is_named(subnet: SubnetConfig, field: str) -> None:
    check_subnet(FULL, SHAPES["llama"])
    with pytest.raises(InvalidInput) as caught:
        check_subnet(subnet, SHAPES["llama"])
    assert caught.value.field == f"subnet.{field}"
