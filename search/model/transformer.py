"""The elastic transformer: one set of weights, any subnet of its space in one forward call.

What a reader will find:
- encoders, decoders and vision models in one module; `ModelShape` says in what they differ;
- widths are prefixes: a subnet of n heads, neurons or features uses the first n (see `reorder`);
- `forward` takes the subnet as an argument, the module holds no active configuration;
- separate q, k and v projections, explicit head counts, so that slicing is plain indexing;
- key-value heads are kept or dropped in groups, together with the queries that share them;
- a subnet of precision int8 runs under the rounding of int8, see `fakequant`.

Shape suffixes: B batch, T tokens, S tokens with those of the cache, D features kept, H heads
kept, K key-value heads kept, N head_dim, F neurons kept, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.model.fakequant import WEIGHT_BITS, linear_int8, round_embedding
from search.model.mixing import linear_attention, rotary_angles, rotated, softmax_attention
from search.shape import ModelShape
from search.space import SubnetConfig
from search.weights import own_layer_sizes

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values, each (B, H, T or S, N), and `attention_bias`."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


class Batch(NamedTuple):
    """Token ids (batch, seq), int64, or pixels (batch, channels, height, width), float.

    The mask (batch, seq) is 1 on real tokens, 0 on padding; an image's patches are all real.
    `token_types` (batch, seq) tells the two texts of a pair apart; None: all are of type 0.
    """

    inputs: Tensor
    attention_mask: Tensor
    token_types: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """`logits` (batch, labels), or (batch, seq, labels) where each token has an answer.

    `hidden` is the embedding's output, then each kept layer's, (batch, seq, features). `relations`
    are queries, keys and values of the last layer, (batch, heads, seq, head_dim); `attention` has
    queries and keys of each kept layer where `forward` was asked for them.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...]
    relations: tuple[Tensor, ...] = ()
    attention: tuple[tuple[Tensor, ...], ...] = ()

    def to(self, device: torch.device) -> Output:
        return Output(
            self.logits.to(device),
            tuple(x.to(device) for x in self.hidden),
            tuple(x.to(device) for x in self.relations),
            tuple(tuple(x.to(device) for x in layer) for layer in self.attention),
        )


@dataclass(frozen=True, slots=True)
class Gates:
    """Multipliers (all ones) on units; their gradients measure importance."""

    heads: tuple[Tensor, ...]  # per layer, one for each key-value head and its queries
    neurons: tuple[Tensor, ...]  # per layer (ffn_dim,)
    features: Tensor  # (embed_dim,), on the output of every norm


class KeyValueCache:
    """Keys and values, (B, K, S, N) of each kept layer, of the tokens read so far."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]] = ()) -> None:
        self._layers = list(layers)

    @property
    def num_tokens(self) -> int:
        return self._layers[0][0].shape[2] if self._layers else 0

    def copy(self) -> KeyValueCache:
        """The same tokens; what is added to the one is not added to the other."""
        return KeyValueCache(self._layers)

    def extend(self, place: int, k_BKTN: Tensor, v_BKTN: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new tokens to the layer at `place`; all of its keys and values."""
        if place == len(self._layers):
            self._layers.append((k_BKTN, v_BKTN))
        else:
            k_BKSN, v_BKSN = self._layers[place]
            joined = torch.cat([k_BKSN, k_BKTN], 2), torch.cat([v_BKSN, v_BKTN], 2)
            self._layers[place] = joined
        return self._layers[place]


@dataclass(frozen=True, slots=True)
class Pass:
    """What every layer of one forward call shares."""

    subnet: SubnetConfig
    bias_B1TS: Tensor
    rotary: tuple[Tensor, Tensor] | None  # cosines and sines, (T, N)
    gates: Gates | None
    cache: KeyValueCache | None

    @property
    def gate_D(self) -> Tensor | None:
        return self.gates.features if self.gates else None


class Norm(nn.Module):
    """LayerNorm or RMSNorm of however many features it is given."""

    def __init__(self, shape: ModelShape, dim: int, *, kind: str | None = None) -> None:
        super().__init__()
        self.eps = shape.norm_eps
        self.weight = nn.Parameter(torch.ones(dim))
        is_layer = (kind or shape.norm) == "layer"
        self.bias = nn.Parameter(torch.zeros(dim)) if is_layer else None

    def forward(self, x: Tensor, gate_D: Tensor | None = None) -> Tensor:
        dim = x.shape[-1]
        if self.bias is None:
            normed = F.rms_norm(x, (dim,), self.weight[:dim], self.eps)
        else:
            normed = F.layer_norm(x, (dim,), self.weight[:dim], self.bias[:dim], self.eps)
        return normed if gate_D is None else normed * gate_D


class Attention(nn.Module):
    def __init__(self, shape: ModelShape, dim: int, num_heads: int) -> None:
        super().__init__()
        inner = num_heads * shape.head_dim
        kv = inner // shape.queries_per_group
        self.head_dim = shape.head_dim
        self.queries_per_group = shape.queries_per_group
        is_linear = shape.attention == "linear"
        self.attend: Attend = linear_attention if is_linear else softmax_attention
        self.q = nn.Linear(dim, inner, bias=shape.has_qkv_bias)
        self.k = nn.Linear(dim, kv, bias=shape.has_qkv_bias)
        self.v = nn.Linear(dim, kv, bias=shape.has_qkv_bias)
        self.out = nn.Linear(inner, dim, bias=shape.has_out_bias)
        if shape.has_qk_norm:
            self.q_norm = Norm(shape, shape.head_dim, kind="rms")
            self.k_norm = Norm(shape, shape.head_dim, kind="rms")
        self.norm = Norm(shape, dim)

    def forward(
        self, x_BTD: Tensor, num_heads: int, place: int, shared: Pass, linear: Linear
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attention of the first `num_heads` heads, without residual and norm; its q, k, v."""
        num_kv = num_heads // self.queries_per_group
        q_BHTN = self._heads(self.q, x_BTD, num_heads, linear)
        k_BKTN = self._heads(self.k, x_BTD, num_kv, linear)
        v_BKTN = self._heads(self.v, x_BTD, num_kv, linear)
        if hasattr(self, "q_norm"):
            q_BHTN, k_BKTN = self.q_norm(q_BHTN), self.k_norm(k_BKTN)
        if shared.rotary is not None:
            q_BHTN, k_BKTN = rotated(q_BHTN, shared.rotary), rotated(k_BKTN, shared.rotary)
        relations = (q_BHTN, k_BKTN, v_BKTN)
        if shared.cache is not None:
            k_BKTN, v_BKTN = shared.cache.extend(place, k_BKTN, v_BKTN)
        mixed_BHTN = self.attend(
            q_BHTN,
            self._for_every_query(k_BKTN),
            self._for_every_query(v_BKTN),
            shared.bias_B1TS,
        )
        if shared.gates is not None:
            gate_K = shared.gates.heads[shared.subnet.layers[place]]
            mixed_BHTN = mixed_BHTN * self._each_query(gate_K)[:, None, None]
        mixed_BTI = mixed_BHTN.transpose(1, 2).flatten(2)
        weight = self.out.weight[: x_BTD.shape[-1], : mixed_BTI.shape[-1]]
        return linear(mixed_BTI, weight, _first(self.out.bias, x_BTD.shape[-1])), relations

    def _heads(self, projection: nn.Linear, x_BTD: Tensor, count: int, linear: Linear) -> Tensor:
        rows = count * self.head_dim
        weight = projection.weight[:rows, : x_BTD.shape[-1]]
        y_BTI = linear(x_BTD, weight, _first(projection.bias, rows))
        return y_BTI.view(*x_BTD.shape[:2], count, self.head_dim).transpose(1, 2)

    def _for_every_query(self, x_BKSN: Tensor) -> Tensor:
        if self.queries_per_group == 1:
            return x_BKSN
        return x_BKSN.repeat_interleave(self.queries_per_group, dim=1)

    def _each_query(self, gate_K: Tensor) -> Tensor:
        return gate_K.repeat_interleave(self.queries_per_group)


class FeedForward(nn.Module):
    """Its matrices are whole, or each the product of two: `up` after `up_low`, and so on."""

    def __init__(self, shape: ModelShape, dim: int, ffn_dim: int) -> None:
        super().__init__()
        rank, has_bias = shape.ffn_rank, shape.has_ffn_bias

        def low(columns: int) -> nn.Linear | None:
            return nn.Linear(columns, rank, bias=False) if rank else None

        self.activation = ACTIVATIONS[shape.activation]
        self.gate = self.gate_low = None
        if shape.is_gated:
            self.gate_low, self.gate = low(dim), nn.Linear(rank or dim, ffn_dim, bias=has_bias)
        self.up_low, self.up = low(dim), nn.Linear(rank or dim, ffn_dim, bias=has_bias)
        self.down_low, self.down = low(ffn_dim), nn.Linear(rank or ffn_dim, dim, bias=has_bias)
        self.norm = Norm(shape, dim)

    def forward(
        self, x_BTD: Tensor, ffn_dim: int, gate_F: Tensor | None, linear: Linear
    ) -> Tensor:
        """The first `ffn_dim` neurons, without residual and norm."""

        def project(low: nn.Linear | None, part: nn.Linear, x: Tensor, rows: int) -> Tensor:
            columns = x.shape[-1]
            if low is not None:
                x, columns = linear(x, low.weight[:, :columns], None), len(low.weight)
            return linear(x, part.weight[:rows, :columns], _first(part.bias, rows))

        up_BTF = project(self.up_low, self.up, x_BTD, ffn_dim)
        if self.gate is None:
            h_BTF = self.activation(up_BTF)
        else:
            h_BTF = self.activation(project(self.gate_low, self.gate, x_BTD, ffn_dim)) * up_BTF
        if gate_F is not None:
            h_BTF = h_BTF * gate_F
        return project(self.down_low, self.down, h_BTF, x_BTD.shape[-1])


class Layer(nn.Module):
    def __init__(self, shape: ModelShape, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.norm_first = shape.norm_first
        self.attn = Attention(shape, dim, num_heads)
        self.ffn = FeedForward(shape, dim, ffn_dim)

    def forward(
        self,
        x_BTD: Tensor,
        place: int,
        shared: Pass,
        linear: Linear,
        drop: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The layer at `place` of the subnet's; its q, k and v too."""
        subnet, gate_D = shared.subnet, shared.gate_D
        gate_F = shared.gates.neurons[subnet.layers[place]] if shared.gates else None
        read = self.attn.norm(x_BTD, gate_D) if self.norm_first else x_BTD
        a_BTD, relations = self.attn(read, subnet.num_heads[place], place, shared, linear)
        x_BTD = x_BTD + drop(a_BTD)
        if not self.norm_first:
            x_BTD = self.attn.norm(x_BTD, gate_D)
        read = self.ffn.norm(x_BTD, gate_D) if self.norm_first else x_BTD
        x_BTD = x_BTD + drop(self.ffn(read, subnet.ffn_dim[place], gate_F, linear))
        if not self.norm_first:
            x_BTD = self.ffn.norm(x_BTD, gate_D)
        return x_BTD, relations


class Embeddings(nn.Module):
    """Tokens or patches as vectors of however many features are asked for."""

    def __init__(self, shape: ModelShape, dim: int) -> None:
        super().__init__()
        self.shape = shape
        if shape.reads_images:
            self.patch = nn.Linear(shape.patch_dim, dim)
            self.prefix = nn.Parameter(torch.zeros(shape.num_prefix_tokens, dim))
        else:
            self.word = nn.Embedding(shape.vocab_size, shape.word_rank or dim)
        if shape.word_rank:
            self.spread = nn.Linear(shape.word_rank, dim, bias=False)
        if shape.positions == "learned":
            self.position = nn.Embedding(shape.max_seq_len, dim)
        if shape.num_token_types:
            self.token_type = nn.Embedding(shape.num_token_types, dim)
        self.norm = None if shape.norm_first else Norm(shape, dim)

    def forward(
        self, batch: Batch, dim: int, *, start: int, is_int8: bool, gate_D: Tensor | None
    ) -> Tensor:
        """(B, T, dim); `start` is the position of the first token, `is_int8` rounds tables."""
        if self.shape.reads_images:
            x_BTD = self._patches(batch.inputs, dim)
        else:
            x_BTD = self._words(batch.inputs, dim, is_int8)
        x_BTD = x_BTD + self._positions(batch, x_BTD.shape[1], dim, start, is_int8)
        return x_BTD if self.norm is None else self.norm(x_BTD, gate_D)

    def _words(self, ids_BT: Tensor, dim: int, is_int8: bool) -> Tensor:
        rank = self.shape.word_rank or dim
        x_BTR = self.word(ids_BT)[..., :rank]
        if is_int8:
            x_BTR = round_embedding(x_BTR, self.word.weight[:, :rank])
        return F.linear(x_BTR, self.spread.weight[:dim]) if self.shape.word_rank else x_BTR

    def _patches(self, pixels_BCHW: Tensor, dim: int) -> Tensor:
        size = self.shape.patch_size
        patches_BTP = F.unfold(pixels_BCHW, size, stride=size).transpose(1, 2)
        x_BTD = F.linear(patches_BTP, self.patch.weight[:dim], self.patch.bias[:dim])
        prefix = self.prefix[:, :dim].expand(x_BTD.shape[0], -1, -1)
        return torch.cat([prefix, x_BTD], 1)

    def _positions(
        self, batch: Batch, num_tokens: int, dim: int, start: int, is_int8: bool
    ) -> Tensor | float:
        """What is added for a token's place and type."""
        if self.shape.positions != "learned":
            return 0.0
        table = self.position.weight[:, :dim]
        if self.shape.num_token_types and batch.token_types is None:
            # Type 0 is every token's: an exported file holds it in its table of positions.
            table = table + self.token_type.weight[0, :dim]
        added = table[start : start + num_tokens]
        if is_int8 and not self.shape.reads_images:
            added = round_embedding(added, table)
        if batch.token_types is not None:
            added = added + self.token_type(batch.token_types)[..., :dim]
        return added


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
        dim = self.sizes.width_in(shape)
        self.embeddings = Embeddings(shape, dim)
        self.layers = nn.ModuleList(
            Layer(shape, dim, num_heads, ffn_dim)
            for num_heads, ffn_dim in own_layer_sizes(shape, self.sizes)
        )
        self.norm = Norm(shape, dim) if shape.norm_first else None
        self.head = None
        if shape.has_head and not shape.has_tied_head:
            self.head = nn.Linear(dim, shape.num_labels, bias=shape.has_head_bias)
        self._initialise()

    def forward(
        self,
        batch: Batch,
        subnet: SubnetConfig | None = None,
        *,
        gates: Gates | None = None,
        cache: KeyValueCache | None = None,
        with_attention: bool = False,
    ) -> Output:
        """Run `subnet` (None: the whole network). Dropout is active in training mode only.

        Args:
            cache: what earlier calls read; the batch's tokens follow on them and are added. The
                mask then covers all tokens, the earlier ones too.
            with_attention: whether the output has every layer's queries and keys.
        """
        x_BTD, shared = self.begin(batch, subnet, gates=gates, cache=cache)
        hidden, attention = [x_BTD], []
        relations: tuple[Tensor, ...] = ()
        for place in range(shared.subnet.num_layers):
            x_BTD, relations = self.run_layer(place, x_BTD, shared)
            hidden.append(x_BTD)
            if with_attention:
                attention.append(relations[:2])
        logits = self.answer(x_BTD, batch, shared)
        return Output(logits, tuple(hidden), relations, tuple(attention))

    def begin(
        self,
        batch: Batch,
        subnet: SubnetConfig | None = None,
        *,
        gates: Gates | None = None,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Pass]:
        """The embedding's output, and what the layers need; see `run_layer` and `answer`."""
        subnet = subnet or self.sizes
        start = cache.num_tokens if cache else 0
        x_BTD = self.embeddings(
            batch,
            min(subnet.width_in(self.shape), self.sizes.width_in(self.shape)),
            start=start,
            is_int8=subnet.precision == "int8",
            gate_D=gates.features if gates else None,
        )
        num_tokens = x_BTD.shape[1]
        bias = attention_bias(batch.attention_mask, num_tokens, is_causal=self.shape.is_causal)
        rotary = None
        if self.shape.positions == "rotary":
            rotary = rotary_angles(self.shape, start, num_tokens, x_BTD.device)
        return self._drop(x_BTD), Pass(subnet, bias, rotary, gates, cache)

    def run_layer(
        self, place: int, x_BTD: Tensor, shared: Pass
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Output of the subnet's layer at `place`, and its queries, keys and values."""
        index = shared.subnet.layers[place]
        layer = self.layers[index // self.shape.layers_per_group]
        assert isinstance(layer, Layer)
        linear = self._linear(is_int8=shared.subnet.precision_of(index) == "int8")
        output: tuple[Tensor, tuple[Tensor, ...]] = layer(x_BTD, place, shared, linear, self._drop)
        return output

    def answer(self, x_BTD: Tensor, batch: Batch, shared: Pass) -> Tensor:
        """Logits, or the pooled text itself where there is no head, from the last layer."""
        if self.norm is not None:
            x_BTD = self.norm(x_BTD, shared.gate_D)
        if self.shape.reads_images:
            x_BTD = x_BTD[:, 0]
        elif not self.shape.answers_per_token:
            x_BTD = mean_pool(x_BTD, batch.attention_mask)
        if not self.shape.has_head:
            return x_BTD
        weight = self.embeddings.word.weight if self.head is None else self.head.weight
        bias = None if self.head is None else self.head.bias
        # A vocabulary's matrix is most of a small network's work; a few labels' costs nothing.
        is_int8 = shared.subnet.precision == "int8" and self.shape.task == "language-modelling"
        linear = self._linear(is_int8=is_int8)
        return linear(self._drop(x_BTD), weight[:, : x_BTD.shape[-1]], bias)

    def _linear(self, *, is_int8: bool) -> Linear:
        return partial(linear_int8, weight_bits=self.weight_bits) if is_int8 else F.linear

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def _initialise(self) -> None:
        """Matrices and tables normal with a deviation of 0.02, biases 0, as GPT-2 and BERT do."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.shape.reads_images:
            nn.init.normal_(self.embeddings.prefix, std=0.02)


def attention_bias(mask_BS: Tensor, num_tokens: int, *, is_causal: bool) -> Tensor:
    """(B, 1, 1 or T, S), float: 0 where a token is seen, the least number where it is not."""
    low = torch.finfo(torch.float32).min
    bias_B1TS = torch.zeros_like(mask_BS, dtype=torch.float32).masked_fill(mask_BS == 0, low)
    bias_B1TS = bias_B1TS[:, None, None, :]
    if not is_causal:
        return bias_B1TS
    total = mask_BS.shape[1]
    places = torch.arange(total, device=mask_BS.device)
    is_later_TS = places[None, :] > places[total - num_tokens :, None]
    return bias_B1TS.expand(-1, 1, num_tokens, -1).masked_fill(is_later_TS, low)


def mean_pool(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the real tokens; (batch, features)."""
    weight_BT1 = mask_BT.unsqueeze(-1).to(x_BTD.dtype)
    return (x_BTD * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)


def _first(bias: Tensor | None, size: int) -> Tensor | None:
    return None if bias is None else bias[:size]
