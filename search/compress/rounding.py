"""Weights in fewer bits: what each format makes of a matrix, and what it takes to store.

int8 is not here: it rounds activations too, is a `SubnetConfig`'s own precision, and runs as such
in ONNX Runtime and OpenVINO (`search.model.fakequant`). These formats round weights alone, and
`int8-integer` what is computed with them when it is run (`search.compress.integer`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from search.model.fakequant import WEIGHT_BITS, round_weight
from search.model.linears import layer_matrix_names
from search.model.transformer import ElasticTransformer, Linear

GROUP = 32  # weights of a row that share a scale, as ONNX Runtime's MatMulNBits has it
TERNARY_THRESHOLD = 0.7
WORDS, POSITIONS = "embeddings.word.weight", "embeddings.position.weight"

Round = Callable[[Tensor], Tensor]


class Way(NamedTuple):
    """What a matrix or table reads as after having been stored, and the bits of one weight, its
    share of scales included, for a row of so many."""

    round: Round
    bits: Callable[[int], float]


BYTES = Way(lambda w: round_weight(w, WEIGHT_BITS), lambda columns: 8 + 32 / columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """Of the layers' matrices.

    Attributes:
        round: a matrix (out, in) as it reads after having been stored.
        bits: of one weight, its share of scales included, for a row of `in` weights.
        rounds_all: whether tables, norms and biases are stored so as well. Where not, tables of
            words and positions take 8 bits a number, with a scale for each row; one that is the
            head too stays as it is.
    """

    round: Round
    bits: Callable[[int], float]
    rounds_all: bool = False

    def ways(self, model: ElasticTransformer) -> Mapping[str, Way]:
        """How each parameter is stored that does not stay as it is."""
        own = Way(self.round, self.bits)
        if self.rounds_all:
            return dict.fromkeys((name for name, _ in model.named_parameters()), own)
        shape = model.shape
        tables = []
        if not shape.reads_images:
            tables += [] if shape.has_tied_head else [WORDS]
            tables += [POSITIONS] if shape.positions == "learned" else []
        return dict.fromkeys(layer_matrix_names(model), own) | dict.fromkeys(tables, BYTES)


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
    "int8-integer": Format(round=BYTES.round, bits=BYTES.bits),
    "int4": Format(round=round_int4, bits=lambda _: 4 + 32 / GROUP),
    "ternary": Format(round=round_ternary, bits=lambda columns: 2 + 32 / columns),
    "binary": Format(round=round_binary, bits=lambda columns: 1 + 32 / columns),
}


def round_(model: ElasticTransformer, name: str) -> None:
    """The weights as the format stores them, in place."""
    ways = FORMATS[name].ways(model)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name in ways:
                parameter.copy_(ways[parameter_name].round(parameter))


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
    ways, total = FORMATS[name].ways(model), 0.0
    for parameter_name, parameter in model.named_parameters():
        if parameter_name in ways:
            bits = ways[parameter_name].bits(parameter.shape[-1])
            total += parameter.numel() * bits / 8
        else:
            total += 4 * parameter.numel()
    return round(total)
