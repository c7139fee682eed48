"""Non-linear functions by integers alone (I-BERT, arXiv 2101.01321, sections 3.4 to 3.6).

A number is a whole one and a scale that is known beforehand. Nothing here divides or rounds but
whole numbers; scales meet each other only where they could be multiplied once, when a network is
written. Where I-BERT has 32 bits, sums and squares have 64 here, and cannot overflow.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

ERF = (-0.2888, -1.769, 1.0)
EXP = (0.3585, 1.353, 0.344)
MAX_HALVINGS = 30  # of exp: below 2^-30 all is zero
PROBABILITY_BITS = 8
NORM_BITS = 15  # behind the point of what is normalised, and of a norm's weight


class Scaled(NamedTuple):
    """`whole` (int64) times `scale` (float64, of any size that broadcasts)."""

    whole: Tensor
    scale: Tensor

    @property
    def value(self) -> Tensor:
        return self.whole * self.scale


def scaled(x: Tensor, peak: float | Tensor, bits: int) -> Scaled:
    """`x` rounded to `bits` around zero, up to `peak`; what is beyond is cut off."""
    steps = 2 ** (bits - 1) - 1
    scale = (torch.as_tensor(peak, dtype=torch.float64) / steps).clamp(min=1e-12)
    return Scaled((x / scale).round().clamp(-steps, steps).long(), scale)


def i_polynomial(x: Scaled, coefficients: tuple[float, float, float]) -> Scaled:
    """a (x + b)^2 + c (algorithm 1)."""
    a, b, c = coefficients
    shift = (b / x.scale).floor().long()
    rest = (c / (a * x.scale.square())).floor().long()
    return Scaled((x.whole + shift).square() + rest, a * x.scale.square())


def i_gelu(x: Scaled) -> Scaled:
    """x (1 + erf(x / sqrt 2)) / 2 by a polynomial, within 0.018 (algorithm 2, table 1)."""
    inner = Scaled(x.whole, x.scale / math.sqrt(2))
    size = inner.whole.abs().minimum((-ERF[1] / inner.scale).floor().long())
    erf = i_polynomial(Scaled(size, inner.scale), ERF)
    one = (1 / erf.scale).floor().long()
    return Scaled(x.whole * (inner.whole.sign() * erf.whole + one), x.scale * erf.scale / 2)


def i_exp(x: Scaled) -> Scaled:
    """exp of what is at most 0: halvings, and a polynomial in between, within 0.0019
    (algorithm 3)."""
    halving = (math.log(2) / x.scale).floor().long().clamp(min=1)
    whole = x.whole.maximum(-MAX_HALVINGS * halving)
    count = torch.div(-whole, halving, rounding_mode="floor")
    rest = i_polynomial(Scaled(whole + count * halving, x.scale), EXP)
    return Scaled(rest.whole >> count, rest.scale)


def i_softmax(x: Scaled, is_seen: Tensor) -> Scaled:
    """Over the last axis, in `PROBABILITY_BITS` bits; what is not seen has none.

    A place among hundreds of alike ones is below half a step, and is lost: as in I-BERT.
    """
    lowest = torch.iinfo(torch.int64).min // 2
    largest = x.whole.masked_fill(~is_seen, lowest).amax(-1, keepdim=True)
    found = i_exp(Scaled((x.whole - largest).clamp(max=0), x.scale)).whole * is_seen
    total = found.sum(-1, keepdim=True).clamp(min=1)
    steps = 2**PROBABILITY_BITS
    probabilities = (found * steps + total // 2) // total
    scale = torch.tensor(1 / steps, dtype=torch.float64)
    return Scaled(probabilities.clamp(max=steps - 1), scale)


def i_sqrt(n: Tensor) -> Tensor:
    """The whole part of the root of whole numbers from 0 on, by Newton's method (algorithm 4)."""
    n = n.clamp(min=0)
    root = torch.full_like(n, 1 << (int(n.max()).bit_length() + 1) // 2)
    while True:
        # Descends to the root from above, and stops there.
        better = (root + n // root.clamp(min=1)) // 2
        if not bool((better < root).any()):
            return root
        root = root.minimum(better)


def i_norm(x: Scaled, weight: Tensor, bias: Tensor) -> Scaled:
    """LayerNorm over the last axis (section 3.6); `weight` and `bias` are constants."""
    size = x.whole.shape[-1]
    centred = x.whole - (x.whole.sum(-1, keepdim=True) + size // 2) // size
    deviation = i_sqrt(centred.square().sum(-1, keepdim=True) // size).clamp(min=1)
    normed = (centred << NORM_BITS) // deviation
    by = scaled(weight, weight.abs().max(), NORM_BITS)
    scale = by.scale / 2**NORM_BITS
    return Scaled(normed * by.whole + (bias / scale).round().long(), scale)
