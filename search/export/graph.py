"""One network as an ONNX graph, from plain arrays: no torch, an agent can build it.

Inputs and outputs have the names that users of transformers expect: `input_ids`,
`attention_mask`, `token_type_ids`, `pixel_values`; `past_key_values.0.key`, `present.0.key`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from search.export.attention import Attention
from search.export.nodes import Nodes, Weights, float_info, int_info
from search.shape import ModelShape
from search.space import SubnetConfig
from search.weights import weight_shapes


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
        self._nodes = Nodes(
            weights,
            norm=shape.norm,
            norm_eps=shape.norm_eps,
            layers_per_group=shape.layers_per_group,
        )
        self._has_cache = phase in ("prefill", "decode")
        self._attention = Attention(self._nodes, shape, subnet, phase)
        self._outputs: list[onnx.ValueInfoProto] = []

    def build(self) -> onnx.ModelProto:
        mask = ""
        if not self._shape.reads_images:
            mask = self._nodes.op("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
            self._add_places()
        self._attention.prepare(mask)
        x = self._embed()
        for i in range(self._subnet.num_layers):
            x = self._block(f"layers.{i}.attn", x, partial(self._attention.add, layer=i))
            x = self._block(f"layers.{i}.ffn", x, partial(self._feed_forward, layer=i))
        self._answer(x, mask)
        outputs = [*self._outputs, *self._attention.cached]
        return self._nodes.to_model(self._inputs(), outputs)

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

    def _feed_forward(self, x: str, *, layer: int) -> str:
        n, name = self._nodes, f"layers.{layer}.ffn"
        up = self._product(f"{name}.up", x)
        if self._shape.is_gated:
            gate = self._product(f"{name}.gate", x)
            gate = n.activation(self._shape.activation, gate, f"{name}.act")
            y = n.op("Mul", [gate, up], f"{name}.gated")
        else:
            y = n.activation(self._shape.activation, up, f"{name}.act")
        return self._product(f"{name}.down", y)

    def _product(self, name: str, x: str) -> str:
        """With a feed-forward matrix, or with the two that it is the product of."""
        if self._shape.ffn_rank:
            x = self._nodes.linear(f"{name}_low", x)
        return self._nodes.linear(name, x)

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
        self._outputs.append(float_info(name, [*size, self._num_outputs()]))

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
