"""One network as an ONNX graph, from plain arrays: no torch, an agent can build it.

Inputs and outputs have the names that users of transformers expect: `input_ids`,
`attention_mask`, `token_type_ids`, `pixel_values`; `past_key_values.0.key`, `present.0.key`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from search.export.nodes import Nodes, Weights, float_info, int_info
from search.shape import ModelShape
from search.space import SubnetConfig
from search.weights import weight_shapes

# exp() of a score this far below the others is exactly 0 in fp32.
MASKED_SCORE = 1e4


def build_onnx(
    shape: ModelShape,
    subnet: SubnetConfig,
    weights: Weights | None,
    *,
    phase: str = "encode",
    vocab_size: int | None = None,
    seed: int = 0,
) -> onnx.ModelProto:
    """The graph of `subnet` in fp32, named and laid out so that `quantize` can make it int8.

    Args:
        weights: the extracted subnet's weights, layers numbered 0..n-1; None draws random ones,
            since a latency depends on shapes alone.
        phase: `encode` answers for the whole input at once. Of a language model, `prefill` reads
            a prompt: logits of its last token, and the keys and values of all; `decode` reads
            one more token after what is in the cache.
        vocab_size: a smaller embedding table for a network that is only measured.
        seed: of the random weights.

    Raises:
        ValueError: `weights` lacks an entry or one has another shape than the subnet says, or a
            phase is asked of a model that has none.
    """
    if weights is not None and vocab_size is not None:
        raise ValueError("vocab_size is for random weights")
    if phase != "encode" and not shape.is_causal:
        raise ValueError(f"a {shape.family} model has no phase {phase!r}")
    expected = weight_shapes(shape, subnet, vocab_size=vocab_size)
    if weights is None:
        weights = random_weights(expected, seed=seed)
    _check(weights, expected)
    return _Network(shape, subnet, weights, phase).build()


def output_name(shape: ModelShape) -> str:
    return "logits" if shape.has_head else "sentence_embedding"


def random_weights(
    shapes: Mapping[str, tuple[int, ...]], *, seed: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Weights as BERT draws them: normal with a deviation of 0.02, norms at one and zero."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, size in shapes.items():
        if name.endswith("bias"):
            weights[name] = np.zeros(size, dtype=np.float32)
        elif name.endswith("norm.weight"):
            weights[name] = np.ones(size, dtype=np.float32)
        else:
            weights[name] = rng.standard_normal(size, dtype=np.float32) * np.float32(0.02)
    return weights


def _check(weights: Weights, expected: Mapping[str, tuple[int, ...]]) -> None:
    for name, size in expected.items():
        if name not in weights:
            raise ValueError(f"weight {name!r} is missing")
        if weights[name].shape != size:
            raise ValueError(f"weight {name!r} has shape {weights[name].shape}, not {size}")


class _Network:
    """Adds a network's parts in the order in which they run."""

    def __init__(
        self, shape: ModelShape, subnet: SubnetConfig, weights: Weights, phase: str
    ) -> None:
        self._shape, self._subnet, self._phase = shape, subnet, phase
        self._nodes = Nodes(weights, norm=shape.norm, norm_eps=shape.norm_eps)
        self._has_cache = phase in ("prefill", "decode")
        self._outputs: list[onnx.ValueInfoProto] = []

    def build(self) -> onnx.ModelProto:
        mask = bias = ""
        if not self._shape.reads_images:
            mask = self._nodes.op("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
            self._add_places()
            bias = self._score_bias(mask)
        if self._shape.positions == "rotary":
            self._add_rotary()
        x = self._embed()
        for i in range(self._subnet.num_layers):
            x = self._block(f"layers.{i}.attn", x, partial(self._attend, layer=i, bias=bias))
            x = self._block(f"layers.{i}.ffn", x, partial(self._feed_forward, layer=i))
        self._answer(x, mask)
        return self._nodes.to_model(self._inputs(), self._outputs)

    # --- inputs -----------------------------------------------------------------------------

    def _inputs(self) -> list[onnx.ValueInfoProto]:
        shape = self._shape
        if shape.reads_images:
            side = shape.image_size
            return [float_info("pixel_values", ["batch", shape.num_channels, side, side])]
        total = "past_and_seq" if self._phase == "decode" else "seq"
        inputs = [
            int_info("input_ids", ["batch", "seq"]),
            int_info("attention_mask", ["batch", total]),
        ]
        if shape.has_token_type_input:
            inputs.append(int_info("token_type_ids", ["batch", "seq"]))
        if self._phase == "decode":
            for i, num_heads in enumerate(self._subnet.num_heads):
                num_kv = num_heads // shape.queries_per_group
                size: list[int | str] = ["batch", num_kv, "past", shape.head_dim]
                inputs += [float_info(f"past_key_values.{i}.{p}", size) for p in ("key", "value")]
        return inputs

    def _add_places(self) -> None:
        """Where the input's tokens stand: `first_place`, `end_place`, vectors of one."""
        n = self._nodes
        n.size_of("input_ids", 1, "seq_len")
        if self._phase == "decode":
            n.size_of("past_key_values.0.key", 2, "first_place")
            n.op("Add", ["first_place", "seq_len"], "end_place")
        else:
            n.ints("first_place", [0])
            n.op("Identity", ["seq_len"], "end_place")

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

    # --- embeddings -------------------------------------------------------------------------

    def _embed(self) -> str:
        n = self._nodes
        if self._shape.reads_images:
            x = self._embed_patches()
        else:
            table = n.weight("embeddings.word.weight")
            x = n.op("Gather", [table, "input_ids"], "embeddings.word")
        if self._shape.word_rank:
            x = n.linear("embeddings.spread", x)
        if self._shape.positions == "learned":
            x = n.op("Add", [x, self._positions()], "embeddings.sum")
        if self._shape.has_token_type_input:
            types = n.op(
                "Gather",
                [n.weight("embeddings.token_type.weight"), "token_type_ids"],
                "embeddings.token_type",
            )
            x = n.op("Add", [x, types], "embeddings.typed")
        return x if self._shape.norm_first else n.norm("embeddings.norm", x)

    def _positions(self) -> str:
        n = self._nodes
        table = n.weights["embeddings.position.weight"]
        if self._shape.reads_images:
            return n.weight("embeddings.position.weight")
        if self._shape.num_token_types and not self._shape.has_token_type_input:
            # Type 0 is every token's, so its row is added to each position's.
            table = table + n.weights["embeddings.token_type.weight"][0]
        # Gather rather than a slice of the table: quantization knows Gather's tables.
        places = n.ints("position_ids", range(len(table)))
        ids = n.op(
            "Slice",
            [places, "first_place", "end_place", n.ints("axis_0", [0])],
            "embeddings.position.ids",
        )
        constant = n.constant("embeddings.position.weight", table)
        return n.op("Gather", [constant, ids], "embeddings.position")

    def _embed_patches(self) -> str:
        n, shape = self._nodes, self._shape
        kernel = n.weights["embeddings.patch.weight"]
        dim, size = self._width, shape.patch_size
        kernel = kernel.reshape(dim, shape.num_channels, size, size)
        weights = [
            n.constant("embeddings.patch.weight", kernel),
            n.weight("embeddings.patch.bias"),
        ]
        x = n.op(
            "Conv",
            ["pixel_values", *weights],
            "embeddings.patch",
            kernel_shape=[size, size],
            strides=[size, size],
        )
        flat = n.ints("flat_patches", [0, dim, shape.num_patches])
        x = n.op("Reshape", [x, flat], "embeddings.patch.flat")
        x = n.op("Transpose", [x], "embeddings.patch.tokens", perm=[0, 2, 1])
        batch = n.size_of("pixel_values", 0, "batch_size")
        rest = n.ints("prefix_size", [shape.num_prefix_tokens, dim])
        size_of_all = n.op("Concat", [batch, rest], "embeddings.prefix.size", axis=0)
        prefix = n.constant("embeddings.prefix", n.weights["embeddings.prefix"][None])
        prefix = n.op("Expand", [prefix, size_of_all], "embeddings.prefix.all")
        return n.op("Concat", [prefix, x], "embeddings.tokens", axis=1)

    # --- layers -----------------------------------------------------------------------------

    def _block(self, name: str, x: str, inside: Callable[[str], str]) -> str:
        """A residual around attention or feed-forward, its norm before or after."""
        n = self._nodes
        if self._shape.norm_first:
            y = inside(n.norm(f"{name}.norm", x))
            return n.op("Add", [x, y], f"{name}.residual")
        return n.norm(f"{name}.norm", n.op("Add", [inside(x), x], f"{name}.residual"))

    def _attend(self, x: str, *, layer: int, bias: str) -> str:
        n, shape = self._nodes, self._shape
        name, num_heads = f"layers.{layer}.attn", self._subnet.num_heads[layer]
        num_kv, head_dim = num_heads // shape.queries_per_group, shape.head_dim
        scale = 1 / math.sqrt(head_dim)
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
        scores = n.op("MatMul", [q, k], f"{name}.qk")
        if shape.queries_per_group > 1:
            apart = n.ints(f"ungroup_{num_heads}", [0, num_heads, -1, 0])
            scores = self._reshape_scores(name, scores, apart, "ungrouped")
        if bias:
            scores = n.op("Add", [scores, bias], f"{name}.scores")
        probs = n.op("Softmax", [scores], f"{name}.probs", axis=-1)
        if shape.queries_per_group > 1:
            together = n.ints(f"regroup_{num_kv}", [0, num_kv, -1, 0])
            probs = self._reshape_scores(name, probs, together, "grouped")
        mixed = n.op("MatMul", [probs, v], f"{name}.context.heads")
        if shape.queries_per_group > 1:
            by_query = n.ints(f"by_query_{num_heads}", [0, num_heads, -1, head_dim])
            mixed = n.op("Reshape", [mixed, by_query], f"{name}.context.ungrouped")
        mixed = n.op("Transpose", [mixed], f"{name}.context.transposed", perm=[0, 2, 1, 3])
        joined = n.ints(f"join_heads_{num_heads}", [0, 0, num_heads * head_dim])
        mixed = n.op("Reshape", [mixed, joined], f"{name}.context")
        return n.linear(f"{name}.out", mixed)

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
            self._outputs.append(float_info(name, ["batch", num_kv, total, shape.head_dim]))
        return found[0], found[1]

    def _reshape_scores(self, name: str, scores: str, size: str, kind: str) -> str:
        return self._nodes.op("Reshape", [scores, size], f"{name}.{scores.split('.')[-1]}.{kind}")

    def _feed_forward(self, x: str, *, layer: int) -> str:
        n, name = self._nodes, f"layers.{layer}.ffn"
        up = n.linear(f"{name}.up", x)
        if self._shape.is_gated:
            gate = n.linear(f"{name}.gate", x)
            gate = n.activation(self._shape.activation, gate, f"{name}.act")
            y = n.op("Mul", [gate, up], f"{name}.gated")
        else:
            y = n.activation(self._shape.activation, up, f"{name}.act")
        return n.linear(f"{name}.down", y)

    # --- the answer -------------------------------------------------------------------------

    def _answer(self, x: str, mask: str) -> None:
        n, shape = self._nodes, self._shape
        if shape.norm_first:
            x = n.norm("norm", x)
        if shape.reads_images:
            x = self._token(x, 0, 1)
        elif self._has_cache:
            x = self._token(x, -1, 2**31)
        elif not shape.answers_per_token:
            x = self._mean_over_tokens(x, mask)
        name = output_name(shape)
        n.op("Identity", [self._head(x) if shape.has_head else x], name)
        per_token = shape.answers_per_token and not self._has_cache
        size: list[int | str] = ["batch", "seq"] if per_token else ["batch"]
        self._outputs.insert(0, float_info(name, [*size, self._num_outputs()]))

    def _num_outputs(self) -> int:
        if self._shape.task == "language-modelling":
            return len(self._nodes.weights["embeddings.word.weight"])
        return self._shape.num_labels if self._shape.has_head else self._width

    @property
    def _width(self) -> int:
        return self._subnet.width_in(self._shape)

    def _token(self, x: str, first: int, end: int) -> str:
        """(batch, features) of one token: an image's first, a prompt's last."""
        n = self._nodes
        axis = n.ints("axis_1", [1])
        span = [n.ints("answer_from", [first]), n.ints("answer_to", [end]), axis]
        return n.op("Squeeze", [n.op("Slice", [x, *span], "pool.token"), axis], "pool.first")

    def _head(self, x: str) -> str:
        n = self._nodes
        if not self._shape.has_tied_head:
            return n.linear("head", x)
        if self._subnet.precision == "int8":
            # A quantizer wants a matrix of its own: two copies of one byte a weight.
            table = n.constant("head.weight", n.weights["embeddings.word.weight"].T)
        else:
            table = n.op("Transpose", [n.weight("embeddings.word.weight")], "head.table")
        return n.op("MatMul", [x, table], "head.product")

    def _mean_over_tokens(self, x: str, mask: str) -> str:
        n = self._nodes
        axis_1 = n.ints("axis_1", [1])
        row = n.op("Unsqueeze", [mask, axis_1], "pool.mask")
        total = n.op("Squeeze", [n.op("MatMul", [row, x], "pool.sum"), axis_1], "pool.total")
        count = n.op("ReduceSum", [mask, axis_1], "pool.num_tokens", keepdims=1)
        count = n.op("Max", [count, n.number("one", 1.0)], "pool.at_least_one")
        return n.op("Div", [total, count], "pool.mean")
