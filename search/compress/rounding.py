"""Weights in fewer bits: what each format makes of a matrix, and what it takes to store.

int8 is not here: it rounds activations too, is a `SubnetConfig`'s own precision, and runs as such
in ONNX Runtime and OpenVINO (`search.model.fakequant`). These formats round weights alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from search.model.linears import layer_matrix_names
from search.model.transformer import ElasticTransformer, Linear

GROUP = 32  # weights of a row that share a scale, as ONNX Runtime's MatMulNBits has it
TERNARY_THRESHOLD = 0.7

Round = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """Of the layers' matrices.

    Attributes:
        round: a matrix (out, in) as it reads after having been stored.
        bits: of one weight, its share of scales included, for a row of `in` weights.
        rounds_all: whether tables, norms and biases are stored so as well.
    """

    round: Round
    bits: Callable[[int], float]
    rounds_all: bool = False


def round_int4(weight: Tensor) -> Tensor:
    """Groups of `GROUP` neighbours around zero, in -8..7 steps of their largest."""
    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -columns % GROUP))
    groups = padded.view(rows, -1, GROUP)
    peak = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    # The largest becomes -8, the end that has a step more.
    scale = peak / -8
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    rounded: Tensor = (groups / scale).round().clamp(-8, 7) * scale
    return rounded.view(rows, -1)[:, :columns]


def round_ternary(weight: Tensor) -> Tensor:
    """-a, 0 or a with one a for each row (Li et al., arXiv 1605.04711, section 2.2)."""
    size = weight.abs()
    stays = size > TERNARY_THRESHOLD * size.mean(1, keepdim=True)
    scale = (size * stays).sum(1, keepdim=True) / stays.sum(1, keepdim=True).clamp(min=1)
    return weight.sign() * stays * scale


def round_binary(weight: Tensor) -> Tensor:
    """-a or a with one a for each row, the mean size (XNOR-Net, arXiv 1603.05279, section 3.1)."""
    sign = torch.where(weight < 0, -1.0, 1.0)
    return sign * weight.abs().mean(1, keepdim=True)


FORMATS: Mapping[str, Format] = {
    "fp16": Format(round=lambda w: w.half().float(), bits=lambda _: 16.0, rounds_all=True),
    "bf16": Format(round=lambda w: w.bfloat16().float(), bits=lambda _: 16.0, rounds_all=True),
    "int4": Format(round=round_int4, bits=lambda _: 4 + 16 / GROUP),
    "ternary": Format(round=round_ternary, bits=lambda columns: 2 + 32 / columns),
    "binary": Format(round=round_binary, bits=lambda columns: 1 + 32 / columns),
}


def round_(model: ElasticTransformer, name: str) -> None:
    """The weights as the format stores them, in place."""
    format_, matrices = FORMATS[name], set(layer_matrix_names(model))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if format_.rounds_all or parameter_name in matrices:
                parameter.copy_(format_.round(parameter))


def under(name: str) -> Callable[[str, Linear], Linear]:
    """For `around_linears`: matrices act rounded, and learn as if they were not (straight
    through; Bengio et al., arXiv 1308.3432)."""
    round_weight = FORMATS[name].round

    def around(_name: str, inner: Linear) -> Linear:
        def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            error = (round_weight(weight.detach()) - weight).detach()
            return inner(x, weight + error, bias)

        return linear

    return around


def stored_bytes(model: ElasticTransformer, name: str) -> int:
    """Of all weights in the format; what it does not round takes 4 bytes each."""
    format_, matrices = FORMATS[name], set(layer_matrix_names(model))
    total = 0.0
    for parameter_name, parameter in model.named_parameters():
        if format_.rounds_all or parameter_name in matrices:
            total += parameter.numel() * format_.bits(parameter.shape[-1]) / 8
        else:
            total += 4 * parameter.numel()
    return round(total)
