from __future__ import annotations

from pathlib import Path

import pytest
import torch

from search.compress.checkpoint import load_compressed, save_compressed
from search.compress.configs import QuantizeConfig, SparsifyConfig
from search.compress.network import Compressed
from search.compress.quantize import quantize
from search.compress.rounding import FORMATS
from search.compress.sparsify import sparsify, sparsity_of
from search.model.linears import layer_matrix_names
from search.training.evaluate import evaluate
from tests.search.compress.data import network, stage_data


def quality(compressed: Compressed) -> float:
    rows = stage_data().task.validation
    return evaluate(compressed.model, rows, compressed.subnet.renumbered()).value


@pytest.mark.parametrize("name", ["fp16", "bf16", "int8"])
def test_16_and_8_bits_answer_as_32_do(name: str) -> None:
    before = network()
    after = quantize(before, QuantizeConfig(format=name), stage_data())
    assert quality(after) == pytest.approx(quality(before), abs=0.02)
    assert after.size_bytes < 0.6 * before.size_bytes


@pytest.mark.parametrize("name", ["int4", "ternary", "binary"])
def test_trained_under_its_rounding_a_network_keeps_more(name: str) -> None:
    at_once = quantize(network(), QuantizeConfig(format=name), stage_data())
    config = QuantizeConfig(format=name, aware_epochs=4, learning_rate=3e-3)
    aware = quantize(network(), config, stage_data())
    for compressed in (at_once, aware):
        parameters = dict(compressed.model.named_parameters())
        for matrix in layer_matrix_names(compressed.model):
            weight = parameters[matrix].detach()
            torch.testing.assert_close(FORMATS[name].round(weight), weight, atol=1e-5, rtol=1e-5)
    assert quality(aware) > 0.9
    assert quality(aware) >= quality(at_once)


def test_fewer_bits_take_less_and_lose_more() -> None:
    found = [
        quantize(network(), QuantizeConfig(format=name), stage_data())
        for name in ("fp16", "int4", "ternary", "binary")
    ]
    sizes = [compressed.size_bytes for compressed in found]
    assert sizes == sorted(sizes, reverse=True)
    assert quality(found[-1]) < quality(found[0])


def test_zeros_stay_zero_in_a_format_that_has_none() -> None:
    sparse = sparsify(network(), SparsifyConfig(sparsity=0.6), stage_data())
    config = QuantizeConfig(format="binary", aware_epochs=0.5)
    assert sparsity_of(quantize(sparse, config, stage_data()).model) == pytest.approx(
        0.6, abs=0.02
    )


def test_what_was_quantized_is_not_changed_by_it_and_survives_a_file(tmp_path: Path) -> None:
    before = network()
    expected = quality(before)
    after = quantize(before, QuantizeConfig(format="binary", aware_epochs=0.5), stage_data())
    assert quality(before) == expected
    save_compressed(after, tmp_path / "network.safetensors")
    read = load_compressed(tmp_path / "network.safetensors")
    assert (read.format, read.size_bytes) == ("binary", after.size_bytes)
    assert quality(read) == quality(after)
