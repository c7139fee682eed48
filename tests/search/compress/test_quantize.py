from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from search.compress.checkpoint import load_compressed, save_compressed
from search.compress.configs import QuantizeConfig, SparsifyConfig
from search.compress.network import Compressed
from search.compress.quantize import quantize
from search.compress.rounding import FORMATS
from search.compress.sparsify import sparsify, sparsity_of
from search.errors import InvalidInput
from search.model.linears import layer_matrix_names
from search.training.evaluate import evaluate
from tests.search import families
from tests.search.compress.data import network, ordered, spoilt, stage_data


def quality(compressed: Compressed) -> float:
    rows = stage_data().task.validation
    with compressed.running() as model:
        return evaluate(model, rows, compressed.subnet.renumbered()).value


@pytest.mark.parametrize("name", ["fp16", "bf16", "int8", "int8-integer"])
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


@pytest.mark.parametrize("name", ["binary", "int8-integer"])
def test_what_was_quantized_is_not_changed_by_it_and_survives_a_file(
    name: str, tmp_path: Path
) -> None:
    before = network()
    expected = quality(before)
    after = quantize(before, QuantizeConfig(format=name, aware_epochs=0.5), stage_data())
    assert quality(before) == expected
    save_compressed(after, tmp_path / "network.safetensors")
    read = load_compressed(tmp_path / "network.safetensors")
    assert (read.format, read.size_bytes) == (name, after.size_bytes)
    assert read.peaks == after.peaks
    assert quality(read) == quality(after)


def test_layers_that_int8_harms_stay_in_fp32_by_their_own_numbers_where_it_is_asked_for() -> None:
    # The layers 1, 3 and 5 of some larger original.
    model = spoilt(0)
    before = Compressed(model, replace(model.sizes, layers=(1, 3, 5)))
    data = replace(stage_data(), task=replace(stage_data().task, train=ordered(200)))
    plain = quantize(before, QuantizeConfig(format="int8"), data)
    assert plain.subnet.float_layers == ()
    config = QuantizeConfig(format="int8", max_float_layers=1, min_agreement=1.0)
    kept = quantize(before, config, data)
    assert kept.subnet.precision == "int8"
    assert kept.subnet.float_layers == (1,)
    assert quality(kept) > quality(plain)
    assert before.size_bytes > kept.size_bytes > plain.size_bytes
    content = quantize(network(), replace(config, min_agreement=0.98), data)
    assert content.subnet.float_layers == ()


def test_whole_numbers_alone_lose_little_and_training_under_int8_may_precede_them() -> None:
    before = network()
    after = quantize(before, QuantizeConfig(format="int8-integer"), stage_data())
    assert quality(after) >= quality(before) - 0.03
    assert after.subnet.precision == "fp32"  # what a runtime would run it as
    assert after.size_bytes < 0.5 * before.size_bytes
    config = QuantizeConfig(format="int8-integer", aware_epochs=0.5)
    assert quality(quantize(before, config, stage_data())) >= quality(before) - 0.03


def test_a_network_without_an_integer_form_is_refused() -> None:
    llama = Compressed.whole(families.network_of(families.SHAPES["llama"]))
    with pytest.raises(InvalidInput, match="RMS norms") as refused:
        quantize(llama, QuantizeConfig(format="int8-integer"), stage_data())
    assert refused.value.field == "quantize.format"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"max_float_layers": -1}, "max_float_layers"),
        ({"max_float_layers": 1, "format": "int4"}, "max_float_layers"),
        ({"min_agreement": 0.0}, "min_agreement"),
        ({"format": "int3"}, "format"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        QuantizeConfig(**settings)
    assert refused.value.field == f"quantize.{field}"
