"""One network as an ONNX graph in fp32, from plain arrays: no torch, an agent can build it.

The graph uses standard operators of opset 17 alone and names every size: ONNX Runtime's own
optimizer has been seen to guess head counts, silently wrong, where a shape said -1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from search.errors import InvalidInput
from search.shape import ModelShape
from search.space import SubnetConfig
from search.weights import weight_shapes

OPSET = 17
IR_VERSION = 8

# exp() of a score this far below the others is exactly 0 in fp32.
MASKED_SCORE = 1e4

Weights = Mapping[str, npt.NDArray[np.float32]]


def build_onnx(
    shape: ModelShape,
    subnet: SubnetConfig,
    weights: Weights | None,
    *,
    vocab_size: int | None = None,
    seed: int = 0,
) -> onnx.ModelProto:
    """The fp32 graph of `subnet`: `input_ids`, `attention_mask` (batch, seq) -> `logits`.

    Args:
        weights: the extracted subnet's weights, layers numbered 0..n-1; None draws random ones,
            since a latency depends on shapes alone.
        vocab_size: a smaller embedding table for a network that is only measured.
        seed: of the random weights.

    Raises:
        InvalidInput: the family is not one that this graph can express.
        ValueError: `weights` lacks an entry or one has another shape than the subnet says.
    """
    if shape.family != "bert":
        raise InvalidInput("model.family", f"no ONNX graph for {shape.family!r}")
    if weights is not None and vocab_size is not None:
        raise ValueError("vocab_size is for random weights")
    expected = weight_shapes(shape, subnet, vocab_size=vocab_size)
    if weights is None:
        weights = random_weights(expected, seed=seed)
    _check(weights, expected)
    graph = _BertGraph(shape, weights)
    graph.add_network(subnet)
    return graph.to_model(shape.num_labels)


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


class _BertGraph:
    """Nodes and constants as they are added; a method returns the name of its result."""

    def __init__(self, shape: ModelShape, weights: Weights) -> None:
        self._shape = shape
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def add_network(self, subnet: SubnetConfig) -> None:
        mask = self._op("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        score_bias = self._score_bias(mask)
        x = self._embed()
        for i, num_heads in enumerate(subnet.num_heads):
            x = self._attention(f"layers.{i}.attn", x, score_bias, num_heads)
            x = self._ffn(f"layers.{i}.ffn", x)
        self._classify(self._mean_over_tokens(x, mask))

    def to_model(self, num_labels: int) -> onnx.ModelProto:
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "seq"])
            for name in ("input_ids", "attention_mask")
        ]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", num_labels])
        graph = helper.make_graph(
            self._nodes, "snugnet", inputs, [logits], list(self._constants.values())
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="snugnet",
        )

    def _embed(self) -> str:
        """Token type 0 is every token's type here, so its row is added to each position's."""
        table = self._weights["embeddings.position.weight"]
        table = table + self._weights["embeddings.token_type.weight"][0]
        seq_len = self._op("Shape", ["input_ids"], "seq_len", start=1, end=2)
        zero = self._ints("axis_0", [0])
        # Gather rather than a slice of the table: quantization knows Gather's tables.
        ids = self._op(
            "Slice",
            [self._ints("position_ids", range(len(table))), zero, seq_len, zero],
            "embeddings.position.ids",
        )
        position = self._op(
            "Gather",
            [self._constant("embeddings.position.weight", table), ids],
            "embeddings.position",
        )
        word = self._op(
            "Gather", [self._weight("embeddings.word.weight"), "input_ids"], "embeddings.word"
        )
        return self._norm("embeddings.norm", self._op("Add", [word, position], "embeddings.sum"))

    def _score_bias(self, mask: str) -> str:
        """(batch, 1, 1, seq): 0 for a token, far below every score for padding."""
        low = self._op("Sub", [mask, self._floats("one", 1.0)], "mask.minus_one")
        low = self._op("Mul", [low, self._floats("masked_score", MASKED_SCORE)], "mask.scores")
        return self._op("Unsqueeze", [low, self._ints("axes_1_2", [1, 2])], "mask.bias")

    def _attention(self, name: str, x: str, score_bias: str, num_heads: int) -> str:
        head_dim = self._shape.head_dim
        by_head = self._ints(f"split_heads_{num_heads}", [0, 0, num_heads, head_dim])
        joined = self._ints(f"join_heads_{num_heads}", [0, 0, num_heads * head_dim])

        def project(part: str, order: Sequence[int], scale: float = 1.0) -> str:
            y = self._op(
                "Reshape",
                [self._linear(f"{name}.{part}", x, scale), by_head],
                f"{name}.{part}.heads",
            )
            return self._op("Transpose", [y], f"{name}.{part}.transposed", perm=list(order))

        q = project("q", (0, 2, 1, 3), scale=1 / math.sqrt(head_dim))
        k = project("k", (0, 2, 3, 1))
        v = project("v", (0, 2, 1, 3))
        scores = self._op(
            "Add", [self._op("MatMul", [q, k], f"{name}.qk"), score_bias], f"{name}.scores"
        )
        probs = self._op("Softmax", [scores], f"{name}.probs", axis=-1)
        context = self._op("MatMul", [probs, v], f"{name}.context.heads")
        context = self._op("Transpose", [context], f"{name}.context.transposed", perm=[0, 2, 1, 3])
        context = self._op("Reshape", [context, joined], f"{name}.context")
        out = self._linear(f"{name}.out", context)
        return self._norm(f"{name}.norm", self._op("Add", [out, x], f"{name}.residual"))

    def _ffn(self, name: str, x: str) -> str:
        up = self._linear(f"{name}.up", x)
        # Exact GELU, x * (1 + erf(x / sqrt 2)) / 2, in the form that runtimes fuse into one op.
        y = self._op("Div", [up, self._floats("sqrt_2", math.sqrt(2))], f"{name}.gelu.scaled")
        y = self._op("Erf", [y], f"{name}.gelu.erf")
        y = self._op("Add", [y, self._floats("one", 1.0)], f"{name}.gelu.shifted")
        y = self._op("Mul", [up, y], f"{name}.gelu.product")
        y = self._op("Mul", [y, self._floats("half", 0.5)], f"{name}.gelu")
        down = self._linear(f"{name}.down", y)
        return self._norm(f"{name}.norm", self._op("Add", [down, x], f"{name}.residual"))

    def _mean_over_tokens(self, x: str, mask: str) -> str:
        axis_1 = self._ints("axis_1", [1])
        row = self._op("Unsqueeze", [mask, axis_1], "pool.mask")
        total = self._op(
            "Squeeze", [self._op("MatMul", [row, x], "pool.sum"), axis_1], "pool.total"
        )
        count = self._op("ReduceSum", [mask, axis_1], "pool.num_tokens", keepdims=1)
        count = self._op("Max", [count, self._floats("one", 1.0)], "pool.at_least_one")
        return self._op("Div", [total, count], "pool.mean")

    def _classify(self, pooled: str) -> None:
        self._op("Identity", [self._linear("head", pooled)], "logits")

    def _linear(self, name: str, x: str, scale: float = 1.0) -> str:
        """x W^T + b, W transposed here once rather than in every run; `scale` is folded in."""
        weight = (self._weights[f"{name}.weight"] * np.float32(scale)).T
        bias = self._weights[f"{name}.bias"] * np.float32(scale)
        product = self._op(
            "MatMul", [x, self._constant(f"{name}.weight", weight)], f"{name}.product"
        )
        return self._op("Add", [product, self._constant(f"{name}.bias", bias)], name)

    def _norm(self, name: str, x: str) -> str:
        inputs = [x, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")]
        return self._op("LayerNormalization", inputs, name, axis=-1, epsilon=self._shape.norm_eps)

    def _weight(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _ints(self, name: str, values: Sequence[int]) -> str:
        return self._constant(name, np.array(values, dtype=np.int64))

    def _floats(self, name: str, value: float) -> str:
        return self._constant(name, np.array(value, dtype=np.float32))

    def _constant(self, name: str, value: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def _op(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        # A node is called as its output is, so that a profile of the runtime can be read.
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output
