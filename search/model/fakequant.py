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


def linear_int8(x: Tensor, weight: Tensor, bias: Tensor, weight_bits: int) -> Tensor:
    """`F.linear` with the rounding of int8; x is (batch, ..., in)."""
    return F.linear(round_activation(x), round_weight(weight, weight_bits), bias)


def round_weight(weight: Tensor, bits: int, peak: Tensor | None = None) -> Tensor:
    """Rounded to `bits` around zero, up to `peak`; None: each row of (out, in) has its own."""
    with torch.no_grad():
        # 7 bits are -64..64 and 8 bits are -127..127: the ranges of ONNX Runtime's quantizer.
        steps = 2 ** (bits - 1) - (1 if bits == WEIGHT_BITS else 0)
        scale = ((weight.abs().amax(-1, keepdim=True) if peak is None else peak) / steps).clamp(
            min=1e-12
        )
        error = (weight / scale).round().clamp(-steps, steps) * scale - weight
    rounded: Tensor = weight + error
    return rounded


def round_activation(x: Tensor) -> Tensor:
    """Rounded to 8 bits between each sample's least and greatest value, zero included."""
    with torch.no_grad():
        flat = x.flatten(1)
        view = (-1,) + (1,) * (x.dim() - 1)
        low = flat.amin(1).clamp(max=0).view(view)
        scale = ((flat.amax(1).clamp(min=0).view(view) - low) / 255).clamp(min=1e-12)
        zero_point = (-low / scale).round()
        error = ((x / scale).round() + zero_point).clamp(0, 255).sub(zero_point) * scale - x
    rounded: Tensor = x + error
    return rounded
