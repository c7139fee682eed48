"""int8 as ONNX Runtime's dynamic quantization rounds it, in float: to score and to train subnets.

Weights are symmetric with one scale an output channel; activations are 8-bit asymmetric with one
scale a sample, since the exported network runs one sample a call. Gradients pass straight
through (Bengio et al., arXiv 1308.3432), so that a student may train under its own rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHT_BITS = 8
REDUCED_WEIGHT_BITS = 7  # what x86 without VNNI needs, see search.export.quantize


def linear_int8(x: Tensor, weight: Tensor, bias: Tensor | None, weight_bits: int) -> Tensor:
    """`F.linear` with the rounding of int8; x is (batch, ..., in)."""
    return F.linear(round_activation(x), round_weight(weight, weight_bits), bias)


def weight_steps(bits: int) -> int:
    """From zero to a row's peak: 7 bits are -64..64 and 8 bits are -127..127, the ranges of ONNX
    Runtime's quantizer."""
    return int(2 ** (bits - 1)) - (1 if bits == WEIGHT_BITS else 0)


def round_weight(weight: Tensor, bits: int) -> Tensor:
    """Rounded to `bits` around zero, up to the peak of each row of (out, in)."""
    with torch.no_grad():
        steps = weight_steps(bits)
        scale = (weight.abs().amax(-1, keepdim=True) / steps).clamp(min=1e-12)
        error = (weight / scale).round().clamp(-steps, steps) * scale - weight
    rounded: Tensor = weight + error
    return rounded


def round_embedding(rows: Tensor, table: Tensor) -> Tensor:
    """Rows looked up in `table`, rounded to 8 bits between the table's least and greatest."""
    with torch.no_grad():
        low, high = table.amin().clamp(max=0), table.amax().clamp(min=0)
        error = _round_between(rows, low, high, 255) - rows
    rounded: Tensor = rows + error
    return rounded


def round_activation(x: Tensor) -> Tensor:
    """Rounded to 8 bits between each sample's least and greatest value, zero included."""
    with torch.no_grad():
        flat = x.flatten(1)
        view = (-1,) + (1,) * (x.dim() - 1)
        low, high = flat.amin(1).clamp(max=0).view(view), flat.amax(1).clamp(min=0).view(view)
        error = _round_between(x, low, high, 255) - x
    rounded: Tensor = x + error
    return rounded


def _round_between(x: Tensor, low: Tensor, high: Tensor, steps: int) -> Tensor:
    """To `steps` even steps from `low` to `high`, of which one is zero."""
    scale = ((high - low) / steps).clamp(min=1e-12)
    zero_point = (-low / scale).round()
    rounded: Tensor = ((x / scale).round() + zero_point).clamp(0, steps).sub(zero_point) * scale
    return rounded
