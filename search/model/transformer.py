"""The elastic transformer: one set of weights, any subnet of its space in one forward call.

What a reader will find:
- widths are prefixes: a subnet of n heads or n neurons uses the first n (see `reorder`);
- `forward` takes the subnet as an argument, the module holds no active configuration;
- separate q, k and v projections, explicit head counts, so that slicing is plain indexing;
- encoder in BERT's form: post-norm LayerNorm, exact GELU, learned absolute positions;
- mean pooling over the real tokens, then a linear head;
- a subnet of precision int8 runs under the rounding of int8, see `fakequant`.

Shape suffixes: B batch, T tokens, D embed_dim, H heads kept, N head_dim, F neurons kept, C labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.model.fakequant import WEIGHT_BITS, linear_int8, round_embedding
from search.space import ModelShape, SubnetConfig

Linear = Callable[[Tensor, Tensor, Tensor], Tensor]


class Batch(NamedTuple):
    """Token ids and mask (batch, seq), int64; the mask is 1 on real tokens, 0 on padding."""

    input_ids: Tensor
    attention_mask: Tensor


@dataclass(frozen=True, slots=True)
class Output:
    """`logits` (batch, labels); `hidden` is the embedding's output, then each kept layer's."""

    logits: Tensor
    hidden: tuple[Tensor, ...]


class Attention(nn.Module):
    def __init__(self, shape: ModelShape, num_heads: int) -> None:
        super().__init__()
        inner = num_heads * shape.head_dim
        self.head_dim = shape.head_dim
        self.q = nn.Linear(shape.embed_dim, inner)
        self.k = nn.Linear(shape.embed_dim, inner)
        self.v = nn.Linear(shape.embed_dim, inner)
        self.out = nn.Linear(inner, shape.embed_dim)
        self.norm = nn.LayerNorm(shape.embed_dim, eps=shape.norm_eps)

    def forward(
        self,
        x_BTD: Tensor,
        bias_B11T: Tensor,
        num_heads: int,
        gate_H: Tensor | None,
        linear: Linear,
    ) -> Tensor:
        """Attention of the first `num_heads` heads, without residual and norm."""
        inner = num_heads * self.head_dim
        q_BHTN, k_BHTN, v_BHTN = (
            linear(x_BTD, p.weight[:inner], p.bias[:inner])
            .view(*x_BTD.shape[:2], num_heads, self.head_dim)
            .transpose(1, 2)
            for p in (self.q, self.k, self.v)
        )
        mixed_BHTN = F.scaled_dot_product_attention(
            q_BHTN, k_BHTN, v_BHTN, attn_mask=bias_B11T.to(q_BHTN.dtype)
        )
        if gate_H is not None:
            mixed_BHTN = mixed_BHTN * gate_H[:, None, None]
        mixed_BTI = mixed_BHTN.transpose(1, 2).flatten(2)
        return linear(mixed_BTI, self.out.weight[:, :inner], self.out.bias)


class FeedForward(nn.Module):
    def __init__(self, shape: ModelShape, ffn_dim: int) -> None:
        super().__init__()
        self.up = nn.Linear(shape.embed_dim, ffn_dim)
        self.down = nn.Linear(ffn_dim, shape.embed_dim)
        self.norm = nn.LayerNorm(shape.embed_dim, eps=shape.norm_eps)

    def forward(
        self, x_BTD: Tensor, ffn_dim: int, gate_F: Tensor | None, linear: Linear
    ) -> Tensor:
        """The first `ffn_dim` neurons, without residual and norm."""
        h_BTF = F.gelu(linear(x_BTD, self.up.weight[:ffn_dim], self.up.bias[:ffn_dim]))
        if gate_F is not None:
            h_BTF = h_BTF * gate_F
        return linear(h_BTF, self.down.weight[:, :ffn_dim], self.down.bias)


class Layer(nn.Module):
    def __init__(self, shape: ModelShape, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.attn = Attention(shape, num_heads)
        self.ffn = FeedForward(shape, ffn_dim)


class Embeddings(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.word = nn.Embedding(shape.vocab_size, shape.embed_dim)
        self.position = nn.Embedding(shape.max_seq_len, shape.embed_dim)
        self.token_type = nn.Embedding(shape.num_token_types, shape.embed_dim)
        self.norm = nn.LayerNorm(shape.embed_dim, eps=shape.norm_eps)

    def forward(self, ids_BT: Tensor, *, is_int8: bool) -> Tensor:
        """Sum of the tables' rows, normalised; `is_int8` rounds the tables."""
        word_BTD = self.word(ids_BT)
        # Token type 0 is every token's: an exported file holds it in its table of positions.
        positions = self.position.weight + self.token_type.weight[0]
        position_TD = positions[: ids_BT.shape[1]]
        if is_int8:
            word_BTD = round_embedding(word_BTD, self.word.weight)
            position_TD = round_embedding(position_TD, positions)
        normed: Tensor = self.norm(word_BTD + position_TD)
        return normed


@dataclass(frozen=True, slots=True)
class Gates:
    """Multipliers (all ones) on each head and each neuron; their gradients measure importance."""

    heads: tuple[Tensor, ...]  # per layer (num_heads,)
    neurons: tuple[Tensor, ...]  # per layer (ffn_dim,)


class ElasticTransformer(nn.Module):
    """A network of `sizes` (None: all of `shape`); every subnet of it runs through `forward`."""

    def __init__(
        self,
        shape: ModelShape,
        sizes: SubnetConfig | None = None,
        *,
        dropout: float = 0.1,
        weight_bits: int = WEIGHT_BITS,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.sizes = (sizes or SubnetConfig.full(shape)).renumbered()
        self.dropout = dropout
        self.weight_bits = weight_bits
        self.embeddings = Embeddings(shape)
        self.layers = nn.ModuleList(
            Layer(shape, num_heads, ffn_dim)
            for num_heads, ffn_dim in zip(self.sizes.num_heads, self.sizes.ffn_dim, strict=True)
        )
        self.head = nn.Linear(shape.embed_dim, shape.num_labels)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, batch: Batch, subnet: SubnetConfig | None = None, gates: Gates | None = None
    ) -> Output:
        """Run `subnet` (None: the whole network). Dropout is active in training mode only."""
        subnet = subnet or self.sizes
        mask_BT = batch.attention_mask
        bias_B11T = torch.zeros_like(mask_BT, dtype=torch.float32).masked_fill(
            mask_BT == 0, torch.finfo(torch.float32).min
        )[:, None, None, :]
        bits = self.weight_bits if subnet.precision == "int8" else None
        linear: Linear = partial(linear_int8, weight_bits=bits) if bits else F.linear
        x_BTD = self._drop(self.embeddings(batch.input_ids, is_int8=bits is not None))
        hidden = [x_BTD]
        for index, num_heads, ffn_dim in zip(
            subnet.layers, subnet.num_heads, subnet.ffn_dim, strict=True
        ):
            layer = self.layers[index]
            assert isinstance(layer, Layer)
            gate_H = gates.heads[index] if gates else None
            gate_F = gates.neurons[index] if gates else None
            a_BTD = self._drop(layer.attn(x_BTD, bias_B11T, num_heads, gate_H, linear))
            x_BTD = layer.attn.norm(x_BTD + a_BTD)
            f_BTD = self._drop(layer.ffn(x_BTD, ffn_dim, gate_F, linear))
            x_BTD = layer.ffn.norm(x_BTD + f_BTD)
            hidden.append(x_BTD)
        return Output(self.head(self._drop(mean_pool(x_BTD, mask_BT))), tuple(hidden))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def mean_pool(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the real tokens; (batch, embed_dim)."""
    weight_BT1 = mask_BT.unsqueeze(-1).to(x_BTD.dtype)
    return (x_BTD * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)
