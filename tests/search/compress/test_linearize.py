from __future__ import annotations

from pathlib import Path

import pytest
import torch

from search.compress.configs import DistillConfig, LinearizeAttentionConfig, PruneConfig
from search.compress.network import Compressed
from search.compress.stages import apply_stage
from search.errors import InvalidInput
from search.export.package import export_onnx
from search.export.parity import check_parity
from search.training.evaluate import evaluate, predict
from tests.search.compress.data import network, ordered, stage_data
from tests.search.families import SHAPES, network_of

LINEARIZE = LinearizeAttentionConfig()


def linear() -> Compressed:
    return apply_stage(network(), LINEARIZE, stage_data())


def test_weights_stay_and_training_makes_up_for_the_other_attention() -> None:
    before, after, data = network(), linear(), stage_data()
    for name, weight in before.model.named_parameters():
        assert torch.equal(after.model.get_parameter(name), weight)
    assert after.size_bytes == before.size_bytes
    taught = apply_stage(after, DistillConfig(epochs=4, learning_rate=3e-3), data)
    rows = data.task.validation
    whole, lost = (evaluate(n.model, rows).value for n in (before, after))
    assert lost < 0.9 < whole
    assert evaluate(taught.model, rows).value > lost + 0.05


def test_long_inputs_cost_in_proportion_to_their_tokens() -> None:
    before, after = network(), linear()
    assert after.flops(2048) / after.flops(1024) == pytest.approx(2, rel=1e-3)
    assert before.flops(2048) / before.flops(1024) > 3
    # As much as softmax where there are as many tokens as a head has features.
    assert after.flops(8) == before.flops(8)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_exported_file_answers_alike(precision: str, tmp_path: Path) -> None:
    after = linear()
    subnet = after.subnet.with_precision(precision)
    path = export_onnx(after.model, subnet, tmp_path / "after.onnx")
    rows = ordered(64)
    expected = predict(after.model, rows, subnet)
    parity = check_parity(path, rows, expected, after.model.shape, precision=precision)
    assert precision == "int8" or parity.max_error < 1e-4


def test_heads_can_be_pruned_after() -> None:
    pruned = apply_stage(linear(), PruneConfig(keep=0.6), stage_data())
    assert sum(pruned.subnet.num_heads) < 12
    assert pruned.model.shape.attention == "linear"
    evaluate(pruned.model, ordered(20))


def test_what_cannot_be_linear_is_refused() -> None:
    with pytest.raises(InvalidInput, match="linear already"):
        apply_stage(linear(), LINEARIZE, stage_data())
    causal = Compressed.whole(network_of(SHAPES["gpt2"]))
    with pytest.raises(InvalidInput, match="this model is causal"):
        apply_stage(causal, LINEARIZE, stage_data())
