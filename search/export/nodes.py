"""Nodes and constants of an ONNX graph as they are added, from plain arrays: no torch.

Standard operators of opset 17 alone, and every size by name: ONNX Runtime's own optimizer has been
seen to guess head counts, silently wrong, where a shape said -1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

OPSET = 17
IR_VERSION = 8

Array = npt.NDArray[np.float32] | npt.NDArray[np.int64]
Weights = Mapping[str, npt.NDArray[np.float32]]


class Nodes:
    """Every method that adds to the graph returns the name of its result."""

    def __init__(
        self, weights: Weights, *, norm: str, norm_eps: float, layers_per_group: int = 1
    ) -> None:
        self.weights = weights
        self._norm, self._norm_eps = norm, norm_eps
        self._layers_per_group = layers_per_group
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}

    def to_model(
        self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        model = helper.make_model(
            helper.make_graph(self._nodes, "snugnet", inputs, outputs),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="snugnet",
        )
        for name, value in self._constants.items():
            store_(model.graph.initializer.add(), name, value)
        return model

    # --- constants --------------------------------------------------------------------------

    def ints(self, name: str, values: Sequence[int]) -> str:
        return self.constant(name, np.array(values, dtype=np.int64))

    def number(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, dtype=np.float32))

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def constant(self, name: str, value: Array) -> str:
        if name not in self._constants:
            self._constants[name] = np.ascontiguousarray(value)
        return name

    # --- operators --------------------------------------------------------------------------

    def op(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        # A node is called as its output is, so that a profile of the runtime can be read.
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def size_of(self, x: str, axis: int, output: str) -> str:
        """One dimension, as a vector of one."""
        return self.op("Shape", [x], output, start=axis, end=axis + 1)

    def linear(self, name: str, x: str, scale: float = 1.0) -> str:
        """x W^T + b, W transposed here once rather than in every run; `scale` is folded in."""
        stored = self._stored(name)
        weight = (self.weights[f"{stored}.weight"] * np.float32(scale)).T
        product = self.op(
            "MatMul", [x, self.constant(f"{stored}.weight", weight)], f"{name}.product"
        )
        if f"{stored}.bias" not in self.weights:
            return product
        bias = self.weights[f"{stored}.bias"] * np.float32(scale)
        return self.op("Add", [product, self.constant(f"{stored}.bias", bias)], name)

    def norm(self, name: str, x: str, *, kind: str | None = None, scale: float = 1.0) -> str:
        """Over the last axis; `scale` multiplies the result."""
        stored = self._stored(name)
        weight = self.constant(
            f"{stored}.weight", self.weights[f"{stored}.weight"] * np.float32(scale)
        )
        if (kind or self._norm) == "layer":
            inputs = [x, weight, self.weight(f"{stored}.bias")]
            return self.op("LayerNormalization", inputs, name, axis=-1, epsilon=self._norm_eps)
        # In the form that runtimes fuse into one op: opset 17 has none for it.
        square = self.op("Pow", [x, self.number("two", 2.0)], f"{name}.square")
        mean = self.op("ReduceMean", [square], f"{name}.mean", axes=[-1], keepdims=1)
        shifted = self.op(
            "Add", [mean, self.number("norm_eps", self._norm_eps)], f"{name}.shifted"
        )
        root = self.op("Sqrt", [shifted], f"{name}.root")
        normed = self.op("Div", [x, root], f"{name}.normed")
        return self.op("Mul", [normed, weight], name)

    def _stored(self, name: str) -> str:
        """By which name there are weights: those of a layer's group, which the file holds once."""
        if not name.startswith("layers."):
            return name
        _, layer, part = name.split(".", 2)
        return f"layers.{int(layer) // self._layers_per_group}.{part}"

    def activation(self, kind: str, x: str, name: str) -> str:
        return {"gelu": self._gelu, "gelu_tanh": self._gelu_tanh, "silu": self._silu}[kind](
            x, name
        )

    def _gelu(self, x: str, name: str) -> str:
        """x * (1 + erf(x / sqrt 2)) / 2, in the form that runtimes fuse into one op."""
        y = self.op("Div", [x, self.number("sqrt_2", math.sqrt(2))], f"{name}.scaled")
        y = self.op("Erf", [y], f"{name}.erf")
        y = self.op("Add", [y, self.number("one", 1.0)], f"{name}.shifted")
        y = self.op("Mul", [x, y], f"{name}.product")
        return self.op("Mul", [y, self.number("half", 0.5)], name)

    def _gelu_tanh(self, x: str, name: str) -> str:
        """x * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
        cube = self.op("Pow", [x, self.number("three", 3.0)], f"{name}.cube")
        cube = self.op("Mul", [cube, self.number("gelu_cubic", 0.044715)], f"{name}.cubic")
        y = self.op("Add", [x, cube], f"{name}.sum")
        y = self.op("Mul", [y, self.number("sqrt_2_pi", math.sqrt(2 / math.pi))], f"{name}.scaled")
        y = self.op("Tanh", [y], f"{name}.tanh")
        y = self.op("Add", [y, self.number("one", 1.0)], f"{name}.shifted")
        half = self.op("Mul", [x, self.number("half", 0.5)], f"{name}.half")
        return self.op("Mul", [half, y], name)

    def _silu(self, x: str, name: str) -> str:
        return self.op("Mul", [x, self.op("Sigmoid", [x], f"{name}.sigmoid")], name)


def store_(tensor: onnx.TensorProto, name: str, value: npt.NDArray[Any]) -> None:
    """Makes `tensor` hold `value`, whatever it held.

    In its place: protobuf copies messages by way of their bytes, of which it takes 2 GiB at most.
    """
    tensor.Clear()
    tensor.name, tensor.raw_data = name, value.tobytes()
    tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
    tensor.dims.extend(value.shape)


def tensor_info(name: str, kind: int, size: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, size)


def float_info(name: str, size: Sequence[int | str]) -> onnx.ValueInfoProto:
    return tensor_info(name, TensorProto.FLOAT, size)


def int_info(name: str, size: Sequence[int | str]) -> onnx.ValueInfoProto:
    return tensor_info(name, TensorProto.INT64, size)
