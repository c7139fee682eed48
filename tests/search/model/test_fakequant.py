from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from search.export.package import export_onnx
from search.export.quantize import cpu_flags, needs_reduced_range
from search.export.running import file_answers
from search.model.fakequant import linear_int8, round_activation, round_weight
from search.training.evaluate import predict
from tests.search.small import network, task


@pytest.mark.parametrize(
    "weight_bits",
    [
        7,
        pytest.param(
            8,
            marks=pytest.mark.skipif(
                needs_reduced_range(cpu_flags(), platform.machine()),
                reason="8-bit products saturate on this processor: it is why 7 bits exist",
            ),
        ),
    ],
)
def test_the_simulation_answers_as_the_quantized_file(tmp_path: Path, weight_bits: int) -> None:
    model, rows = network(weight_bits=weight_bits), task()
    path = export_onnx(model, model.sizes.with_precision("int8"), tmp_path / "int8.onnx")
    actual = file_answers(path, rows)
    sizes = model.sizes.with_precision("int8")
    with torch.no_grad():
        alone = [model(rows.batch([place]), sizes).logits for place in range(len(rows))]
    error = (actual - torch.cat(alone)).abs().mean()
    assert error < 0.1 * (actual - predict(model, rows)).abs().mean()
    simulated = predict(model, rows, sizes)  # in batches, padded
    assert (actual.argmax(-1) == simulated.argmax(-1)).double().mean() >= 0.95


def test_weights_keep_to_their_bits_in_each_row() -> None:
    weight = torch.randn(6, 40)
    for bits, most in ((7, 129), (8, 255)):
        for row in round_weight(weight, bits):
            assert len(row.unique()) <= most
        assert (round_weight(weight, bits) - weight).abs().max() < weight.abs().max() / 2 ** (
            bits - 1
        )


def test_activations_have_a_scale_for_each_sample() -> None:
    x = torch.randn(3, 5, 8) * torch.tensor([1.0, 100.0, 1e-3]).view(3, 1, 1)
    error = (round_activation(x) - x).abs().amax((1, 2))
    span = x.amax((1, 2)).clamp(min=0) - x.amin((1, 2)).clamp(max=0)
    assert torch.all(error <= span / 255 * 0.51)


def test_zero_rounds_to_zero_even_where_all_is_zero() -> None:
    assert torch.all(round_activation(torch.zeros(2, 4)) == 0)
    assert torch.all(round_weight(torch.zeros(2, 4), 8) == 0)


def test_gradients_pass_straight_through() -> None:
    x = torch.randn(4, 6, requires_grad=True)
    weight = torch.randn(3, 6, requires_grad=True)
    torch.autograd.backward(linear_int8(x, weight, torch.zeros(3), 8).sum())
    assert x.grad is not None
    assert weight.grad is not None
    torch.testing.assert_close(x.grad, round_weight(weight, 8).sum(0).expand(4, 6).detach())
    torch.testing.assert_close(weight.grad, round_activation(x).sum(0).expand(3, 6).detach())
