"""Paper costs equal those of the network that is really built."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx
import pytest

from search.costs import flops, num_params, peak_memory_bytes, size_bytes
from search.export.graph import build_onnx
from search.export.quantize import quantize_int8
from search.shape import ModelShape
from search.space import SubnetConfig
from search.weights import weight_shapes

MINILM = ModelShape(
    family="bert",
    num_layers=6,
    embed_dim=384,
    num_heads=12,
    head_dim=32,
    ffn_dim=1536,
    vocab_size=30522,
    max_seq_len=512,
    num_token_types=2,
    num_labels=2,
)
SUBNETS = [
    SubnetConfig.full(MINILM),
    SubnetConfig(layers=(0, 5), num_heads=(3, 6), ffn_dim=(384, 768), precision="int8"),
]


@pytest.mark.parametrize("subnet", SUBNETS)
def test_params_are_those_of_the_extracted_weights(subnet: SubnetConfig) -> None:
    shapes = weight_shapes(MINILM, subnet)
    assert num_params(MINILM, subnet) == sum(math.prod(size) for size in shapes.values())


def test_params_of_minilm_are_as_published() -> None:
    encoder = num_params(MINILM, SubnetConfig.full(MINILM)) - 2 * 384 - 2
    assert encoder == 22_713_216 - (384 * 384 + 384)  # less the pooler, which is not used


def test_flops_count_every_matrix_product_by_hand() -> None:
    subnet = SubnetConfig(layers=(2,), num_heads=(3,), ffn_dim=(100,))
    projections = 4 * 96 * 384 * 10
    attention = 2 * 3 * 10 * 10 * 32
    ffn = 2 * 100 * 384 * 10
    pool_and_head = 10 * 384 + 2 * 384
    expected = 2 * (projections + attention + ffn + pool_and_head)
    assert flops(MINILM, subnet, seq_len=10) == expected
    assert flops(MINILM, subnet, seq_len=10, batch_size=4) == 4 * expected


def test_flops_of_low_rank_and_linear_attention_by_hand() -> None:
    subnet = SubnetConfig(layers=(2,), num_heads=(3,), ffn_dim=(100,))
    whole = flops(MINILM, subnet, seq_len=10)
    ffn, factors = 2 * 100 * 384 * 10, 2 * 20 * (100 + 384) * 10
    low = replace(MINILM, ffn_rank=20)
    assert flops(low, subnet, seq_len=10) - whole == 2 * (factors - ffn)
    # Keys with values and queries with what that makes: a head's width for every token.
    scores, linear = 2 * 3 * 10 * 10 * 32, 2 * 3 * 10 * 32 * 32
    found = flops(replace(MINILM, attention="linear"), subnet, seq_len=10)
    assert found - whole == 2 * (linear - scores)


def test_layers_that_share_their_weights_are_counted_once() -> None:
    subnet = SubnetConfig.full(MINILM)
    for group, own in ((2, 3), (4, 2), (6, 1)):
        shape = replace(MINILM, layers_per_group=group)
        alone = replace(MINILM, num_layers=own)
        assert num_params(shape, subnet) == num_params(alone, SubnetConfig.full(alone))
        assert size_bytes(shape, subnet) == size_bytes(alone, SubnetConfig.full(alone))
        assert flops(shape, subnet, seq_len=64) == flops(MINILM, subnet, seq_len=64)


def test_peak_memory_is_the_weights_and_the_widest_moment_by_hand() -> None:
    subnet = SubnetConfig(layers=(1, 2), num_heads=(3, 12), ffn_dim=(1536, 384))
    tokens, weights = 4 * 10, size_bytes(MINILM, subnet)
    stream, neurons = tokens * 384, tokens * 1536
    assert peak_memory_bytes(MINILM, subnet, seq_len=10, batch_size=4) == (
        weights + 4 * (2 * stream + neurons)
    )
    attention = 512 * 3 * 12 * 32 + 512 * 12 * 512
    assert peak_memory_bytes(MINILM, subnet, seq_len=512) == (
        weights + 4 * (2 * 512 * 384 + attention)
    )


def test_linear_attention_holds_no_scores_of_every_pair() -> None:
    subnet, linear = SubnetConfig.full(MINILM), replace(MINILM, attention="linear")
    at_most = size_bytes(MINILM, subnet) + 4 * 4096 * (2 * 384 + 4 * 384)
    assert peak_memory_bytes(linear, subnet, seq_len=4096) == at_most
    assert peak_memory_bytes(MINILM, subnet, seq_len=4096) > at_most + 4 * 12 * 4000**2


def test_peak_memory_of_a_decoder_has_its_cache() -> None:
    gpt = replace(MINILM, family="gpt2", task="language-modelling", is_causal=True)
    subnet = SubnetConfig.full(gpt)
    step = partial(peak_memory_bytes, gpt, subnet, seq_len=1)
    per_token = 4 * (6 * 2 * 384)
    assert step(past_len=200) - step(past_len=100) == 100 * per_token


def test_precision_changes_bytes_and_nothing_else() -> None:
    fp32, int8 = SUBNETS[0], SUBNETS[0].with_precision("int8")
    assert num_params(MINILM, fp32) == num_params(MINILM, int8)
    assert flops(MINILM, fp32, seq_len=64) == flops(MINILM, int8, seq_len=64)
    assert size_bytes(MINILM, int8) < 0.26 * size_bytes(MINILM, fp32)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_size_is_that_of_the_file_but_for_its_graph(precision: str, tmp_path: Path) -> None:
    shape = ModelShape.from_dict(MINILM.to_dict() | {"vocab_size": 8000, "embed_dim": 96})
    subnet = SubnetConfig(layers=(1,), num_heads=(3,), ffn_dim=(384,), precision=precision)
    path = tmp_path / "model.onnx"
    onnx.save(build_onnx(shape, subnet, None), path)
    if precision == "int8":
        quantize_int8(path, path)
    assert path.stat().st_size == pytest.approx(size_bytes(shape, subnet), rel=0.03)
