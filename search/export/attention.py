"""Attention as nodes of an ONNX graph: what a token sees, rotary angles, scores, cache."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto

from search.export.nodes import Nodes, float_info
from search.shape import ModelShape
from search.space import SubnetConfig

# exp() of a score this far below the others is exactly 0 in fp32.
MASKED_SCORE = 1e4


class Attention:
    """Adds the attention of one layer after the other.

    Attributes:
        cached: outputs that are keys and values, where there is a cache.
    """

    def __init__(self, nodes: Nodes, shape: ModelShape, subnet: SubnetConfig, phase: str) -> None:
        self._nodes, self._shape, self._subnet, self._phase = nodes, shape, subnet, phase
        self._has_cache = phase in ("prefill", "decode")
        self._bias = ""
        self.cached: list[onnx.ValueInfoProto] = []

    def prepare(self, mask: str) -> None:
        """What all layers share.

        Args:
            mask: (batch, all tokens) as floats; empty for images, whose patches are all seen.
        """
        if mask:
            self._bias = self._score_bias(mask)
        if self._shape.positions == "rotary":
            self._add_rotary()

    def add(self, x: str, *, layer: int) -> str:
        """Attention of the layer, without residual and norm."""
        n, shape = self._nodes, self._shape
        name, num_heads = f"layers.{layer}.attn", self._subnet.num_heads[layer]
        num_kv, head_dim = num_heads // shape.queries_per_group, shape.head_dim
        is_linear = shape.attention == "linear"
        scale = 1.0 if is_linear else 1 / math.sqrt(head_dim)
        q = self._heads(f"{name}.q", x, num_heads, scale=scale)
        k = self._heads(f"{name}.k", x, num_kv, is_turned=not self._keeps_keys)
        v = self._heads(f"{name}.v", x, num_kv)
        if self._keeps_keys:
            k, v = self._with_past(layer, k, v)
            k = n.op("Transpose", [k], f"{name}.k.turned", perm=[0, 1, 3, 2])
        if shape.queries_per_group > 1:
            # Queries of a group stand below each other, so that no key has to be repeated.
            grouped = n.ints(f"group_{num_kv}", [0, num_kv, -1, head_dim])
            q = n.op("Reshape", [q, grouped], f"{name}.q.grouped")
        mixed = self._linear_mix(name, q, k, v) if is_linear else self._mix(layer, q, k, v)
        if shape.queries_per_group > 1:
            by_query = n.ints(f"by_query_{num_heads}", [0, num_heads, -1, head_dim])
            mixed = n.op("Reshape", [mixed, by_query], f"{name}.context.ungrouped")
        mixed = n.op("Transpose", [mixed], f"{name}.context.transposed", perm=[0, 2, 1, 3])
        joined = n.ints(f"join_heads_{num_heads}", [0, 0, num_heads * head_dim])
        mixed = n.op("Reshape", [mixed, joined], f"{name}.context")
        return n.linear(f"{name}.out", mixed)

    def _mix(self, layer: int, q: str, k: str, v: str) -> str:
        """Values weighted by the softmax of the scores, keys being turned."""
        n, shape = self._nodes, self._shape
        name, num_heads = f"layers.{layer}.attn", self._subnet.num_heads[layer]
        num_kv = num_heads // shape.queries_per_group
        scores = n.op("MatMul", [q, k], f"{name}.qk")
        if shape.queries_per_group > 1:
            apart = n.ints(f"ungroup_{num_heads}", [0, num_heads, -1, 0])
            scores = self._reshape_scores(name, scores, apart, "ungrouped")
        if self._bias:
            scores = n.op("Add", [scores, self._bias], f"{name}.scores")
        probs = n.op("Softmax", [scores], f"{name}.probs", axis=-1)
        if shape.queries_per_group > 1:
            together = n.ints(f"regroup_{num_kv}", [0, num_kv, -1, 0])
            probs = self._reshape_scores(name, probs, together, "grouped")
        return n.op("MatMul", [probs, v], f"{name}.context.heads")

    def _linear_mix(self, name: str, q: str, k: str, v: str) -> str:
        """See `search.model.mixing.linear_attention`: keys meet values first."""
        n = self._nodes
        q = n.op("Softmax", [q], f"{name}.q.shares", axis=-1)
        if self._bias:
            k = n.op("Add", [k, self._bias], f"{name}.k.masked")
        k = n.op("Softmax", [k], f"{name}.k.shares", axis=-1)
        kept = n.op("MatMul", [k, v], f"{name}.kv")
        return n.op("MatMul", [q, kept], f"{name}.context.heads")

    @property
    def _keeps_keys(self) -> bool:
        """Whether keys are needed as (batch, heads, seq, head_dim): to be turned, or kept."""
        rotates = self._shape.positions == "rotary"
        return self._has_cache or rotates or self._shape.has_qk_norm

    def _heads(
        self, name: str, x: str, count: int, *, scale: float = 1.0, is_turned: bool = False
    ) -> str:
        """(batch, heads, seq, head_dim), or `is_turned` with the last two exchanged."""
        n, shape = self._nodes, self._shape
        is_normed = shape.has_qk_norm and not name.endswith(".v")
        y = n.linear(name, x, 1.0 if is_normed else scale)
        by_head = n.ints(f"split_heads_{count}", [0, 0, count, shape.head_dim])
        y = n.op("Reshape", [y, by_head], f"{name}.heads")
        if is_normed:
            y = n.norm(f"{name}_norm", y, kind="rms", scale=scale)
        order = (0, 2, 3, 1) if is_turned else (0, 2, 1, 3)
        y = n.op("Transpose", [y], f"{name}.transposed", perm=list(order))
        if shape.positions == "rotary" and not name.endswith(".v"):
            y = self._rotated(name, y)
        return y

    def _rotated(self, name: str, x: str) -> str:
        n, half = self._nodes, self._shape.head_dim // 2
        first, second = (
            n.op(
                "Slice",
                [x, n.ints(f"at_{a}", [a]), n.ints(f"at_{b}", [b]), n.ints("axis_3", [3])],
                f"{name}.half_{a}",
            )
            for a, b in ((0, half), (half, 2 * half))
        )
        negated = n.op("Neg", [second], f"{name}.negated")
        exchanged = n.op("Concat", [negated, first], f"{name}.exchanged", axis=-1)
        straight = n.op("Mul", [x, "rotary.cos"], f"{name}.cos")
        across = n.op("Mul", [exchanged, "rotary.sin"], f"{name}.sin")
        return n.op("Add", [straight, across], f"{name}.rotated")

    def _with_past(self, layer: int, k: str, v: str) -> tuple[str, str]:
        """Keys and values of all tokens, which are outputs too where there is a cache."""
        if not self._has_cache:
            return k, v
        n, shape = self._nodes, self._shape
        num_kv = self._subnet.num_heads[layer] // shape.queries_per_group
        total = "past_and_seq" if self._phase == "decode" else "seq"
        found = []
        for part, new in (("key", k), ("value", v)):
            name = f"present.{layer}.{part}"
            if self._phase == "decode":
                past = f"past_key_values.{layer}.{part}"
                found.append(n.op("Concat", [past, new], name, axis=2))
            else:
                found.append(n.op("Identity", [new], name))
            self.cached.append(float_info(name, ["batch", num_kv, total, shape.head_dim]))
        return found[0], found[1]

    def _reshape_scores(self, name: str, scores: str, size: str, kind: str) -> str:
        return self._nodes.op("Reshape", [scores, size], f"{name}.{scores.split('.')[-1]}.{kind}")

    # --- what all layers share ---------------------------------------------------------------

    def _score_bias(self, mask: str) -> str:
        """(batch, 1, 1 or seq, all tokens): 0 where a token is seen, else below every score."""
        n = self._nodes
        low = n.op("Sub", [mask, n.number("one", 1.0)], "mask.minus_one")
        low = n.op("Mul", [low, n.number("masked_score", MASKED_SCORE)], "mask.scores")
        bias = n.op("Unsqueeze", [low, n.ints("axes_1_2", [1, 2])], "mask.bias")
        # One token more may see everything that was before it.
        if not self._shape.is_causal or self._phase == "decode":
            return bias
        places = self._range("places", "first_place", "end_place")
        rows = n.op("Unsqueeze", [places, n.ints("axis_1", [1])], "places.rows")
        is_later = n.op("Less", [rows, places], "mask.is_later")
        later = n.op("Cast", [is_later], "mask.later", to=TensorProto.FLOAT)
        hidden = n.op("Mul", [later, n.number("hidden_score", -MASKED_SCORE)], "mask.hidden")
        return n.op("Add", [bias, hidden], "mask.causal")

    def _range(self, name: str, first: str, end: str) -> str:
        n = self._nodes
        axis = n.ints("axis_0", [0])
        ends = [n.op("Squeeze", [x, axis], f"{name}.{x}") for x in (first, end)]
        return n.op("Range", [*ends, n.constant("step", np.array(1, dtype=np.int64))], name)

    def _add_rotary(self) -> None:
        """`rotary.cos` and `rotary.sin`, (seq, head_dim): angles of the input's places."""
        n, dim = self._nodes, self._shape.head_dim
        places = self._range("rotary.places", "first_place", "end_place")
        places = n.op("Cast", [places], "rotary.float", to=TensorProto.FLOAT)
        column = n.op("Unsqueeze", [places, n.ints("axis_1", [1])], "rotary.column")
        frequencies = self._shape.rope_theta ** -(np.arange(0, dim, 2, dtype=np.float32) / dim)
        both = np.concatenate([frequencies, frequencies]).astype(np.float32)
        angles = n.op("Mul", [column, n.constant("rotary.frequencies", both)], "rotary.angles")
        n.op("Cos", [angles], "rotary.cos")
        n.op("Sin", [angles], "rotary.sin")
