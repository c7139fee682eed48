"""Whole numbers against the functions that they stand for, within what the paper says."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from search.compress.integer_ops import i_exp, i_gelu, i_norm, i_softmax, i_sqrt, scaled


def numbers(*size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("peak", [4.0, 20.0, 100.0])
def test_gelu_is_within_the_papers_error_at_any_scale(peak: float) -> None:
    x = torch.linspace(-peak, peak, 4001, dtype=torch.float64)
    error = (i_gelu(scaled(x, peak, 16)).value - F.gelu(x)).abs()
    # Table 1: 0.018 at the most, 0.0082 in the mean square from -4 to 4.
    assert float(error.max()) < 0.0183 + peak / 2**15
    if peak == 4.0:
        assert float(error.square().mean().sqrt()) == pytest.approx(0.0082, abs=1e-4)


def test_exp_is_within_the_papers_error_and_ends_at_zero() -> None:
    x = torch.linspace(-12, 0, 4001, dtype=torch.float64)
    found = i_exp(scaled(x, 12.0, 16)).value
    assert float((found - x.exp()).abs().max()) < 0.0019 + 1e-3
    tiny = i_exp(scaled(torch.tensor([-40.0]), 40.0, 16)).value
    assert float(tiny) == pytest.approx(0, abs=1e-6)


def test_softmax_has_eight_bits_and_gives_nothing_to_what_is_not_seen() -> None:
    scores = 2 * numbers(3, 5, 12)
    seen = torch.ones(3, 1, 12, dtype=torch.bool)
    seen[1, :, 7:] = False
    found = i_softmax(scaled(scores, 8.0, 16), seen.expand_as(scores))
    expected = scores.masked_fill(~seen, -math.inf).softmax(-1)
    assert float((found.value - expected).abs().max()) < 1.5 / 256
    assert not found.whole[1, :, 7:].any()
    assert int(found.whole.max()) <= 255


def test_the_root_is_the_whole_part_of_the_root_of_any_size() -> None:
    cases = [0, 1, 2, 3, 4, 8, 15, 16, 17, 10**6, 10**6 - 1, 2**40, 2**52 - 1, 2**61 + 12345]
    found = i_sqrt(torch.tensor(cases))
    assert found.tolist() == [math.isqrt(n) for n in cases]


def test_a_norm_of_whole_numbers_is_the_norm() -> None:
    x = 3 + 2 * numbers(4, 7, 32)
    x[..., 5] *= 20  # a feature that outgrows the others, as pretrained networks have them
    weight, bias = 1 + 0.3 * numbers(32, seed=1), numbers(32, seed=2)
    found = i_norm(scaled(x, x.abs().max(), 22), weight, bias).value
    expected = F.layer_norm(x, (32,), weight, bias, 0.0)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)
    constant = scaled(torch.full((1, 8), 2.0, dtype=torch.float64), 2.0, 22)
    assert not i_norm(constant, weight[:8], torch.zeros(8)).value.any()


def test_rounding_cuts_off_what_is_beyond_the_peak_and_bears_a_peak_of_zero() -> None:
    found = scaled(torch.tensor([-9.0, -1.0, 0.004, 2.0]), 1.0, 8)
    assert found.whole.tolist() == [-127, -127, 1, 127]
    assert scaled(torch.zeros(3), 0.0, 8).value.tolist() == [0, 0, 0]
