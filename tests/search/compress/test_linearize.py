from __future__ import annotations

from pathlib import Path

import pytest
import torch

from search.compress.configs import DistillConfig, LinearizeAttentionConfig, PruneConfig
from search.compress.linearize import FACTORS, linearized
from search.compress.network import Compressed
from search.compress.stages import apply_stage
from search.errors import InvalidInput
from search.export.package import export_onnx
from search.export.parity import check_parity
from search.training.evaluate import evaluate, predict
from search.training.losses import hidden_error
from tests.search.compress.data import network, ordered, stage_data
from tests.search.families import SHAPES, network_of

LINEARIZE = LinearizeAttentionConfig()


def linear() -> Compressed:
    return apply_stage(network(), LINEARIZE, stage_data())


def test_training_makes_up_for_the_other_attention() -> None:
    before, after, data = network(), linear(), stage_data()
    assert after.size_bytes == before.size_bytes
    taught = apply_stage(after, DistillConfig(epochs=4, learning_rate=3e-3), data)
    rows = data.task.validation
    whole, lost, found = (evaluate(n.model, rows) for n in (before, after, taught))
    assert lost.value < whole.value - 0.02
    assert found.value > whole.value - 0.02
    assert found.loss < 0.7 * lost.loss


def test_queries_and_keys_are_as_sharp_as_brings_it_nearest_to_softmax() -> None:
    before, after = network(), linear()
    batch = ordered(64, seed=3).batch(range(64))
    with torch.no_grad():
        whole = before.model(batch)
        errors = {
            factor: float(
                hidden_error(linearized(before.model, factor)(batch), before.subnet, whole, batch)
            )
            for factor in FACTORS
        }
    best = min(errors, key=errors.__getitem__)
    assert errors[best] < 0.95 * errors[1.0]
    for name, weight in before.model.named_parameters():
        is_sharper = ".attn.q." in name or ".attn.k." in name
        expected = weight * best if is_sharper else weight
        assert torch.equal(after.model.get_parameter(name), expected), name


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
    with pytest.raises(InvalidInput, match="no scores of pairs of tokens"):
        apply_stage(linear(), DistillConfig(attention=1.0), stage_data())
