"""int8 with scales of activations that are chosen once, from data, for ONNX Runtime.

Features of an activation that are far larger than others would take the whole range of int8. They
are made smaller, and the columns of the matrix that reads them larger (SmoothQuant, arXiv
2211.10438, section 4): that is what brings MiniLM's vectors from a cosine of .992 to .998
(docs/lab-notes.md), while scaling once instead of in every run changes nothing that we can
measure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from search.export.nodes import store_
from search.export.ranges import Floats, Range, products_of
from search.export.tables import round_tables_

# Of the difficulty, how much the matrix takes over; .5 to .95 were tried.
SMOOTHING = 0.85
# Mixing values by attention leaves no large features: nothing was gained there.
NOT_SMOOTHED = "attn.out.product"
DOMAIN = "com.microsoft"
LEAST = 1e-5


def quantize_static_(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    *,
    float_nodes: Collection[str],
    weight_steps: int,
) -> onnx.ModelProto:
    """Makes a graph in fp32 one in int8, and returns it.

    Args:
        ranges: of what each product with a matrix reads; see `products_of`.
        float_nodes: names of products that stay in fp32.
        weight_steps: from zero to a channel's largest weight: 127, or 64 where sums of int8
            would saturate otherwise.
    """
    quantizer = _Quantizer(model.graph, ranges, weight_steps)
    for x, products in products_of(model.graph, float_nodes).items():
        quantizer.round_products(x, products)
    quantizer.finish()
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return round_tables_(model)


class _Quantizer:
    """Replaces products and what feeds them, one activation at a time."""

    def __init__(
        self, graph: onnx.GraphProto, ranges: Mapping[str, Range], weight_steps: int
    ) -> None:
        self._graph, self._ranges, self._steps = graph, ranges, weight_steps
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._maker = {node.output[0]: node for node in graph.node}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        # By the output of a node: what comes right after it.
        self._added: dict[str, list[onnx.NodeProto]] = {}
        self._gone: set[str] = set()
        self._rounded: set[str] = set()  # matrices

    def round_products(self, x: str, products: Sequence[onnx.NodeProto]) -> None:
        """`x` is rounded once for all products that read it."""
        seen, factors = self._ranges[x], None
        # What layers share, each would have to divide by factors of its own.
        is_shared = any(len(self._readers[node.input[1]]) > 1 for node in products)
        if not (is_shared or products[0].name.endswith(NOT_SMOOTHED)):
            factors = self._factors(seen, products)
            seen = seen.divided(factors)
        self._round(x, seen, factors, products)
        for node in products:
            self._round_product(node, x, factors)

    def finish(self) -> None:
        nodes = [
            new
            for node in self._graph.node
            if node.name not in self._gone
            for new in (node, *self._added.get(node.output[0], ()))
        ]
        del self._graph.node[:]
        self._graph.node.extend(nodes)

    # --- activations ------------------------------------------------------------------------

    def _factors(self, seen: Range, products: Sequence[onnx.NodeProto]) -> Floats:
        """By what each feature is divided, (features,): equation 4, with a geometric mean of 1."""
        columns = np.max([np.abs(self._array(n.input[1])).max(1) for n in products], axis=0)
        size = np.maximum(seen.peak, LEAST) ** SMOOTHING
        factors = size / np.maximum(columns, LEAST) ** (1 - SMOOTHING)
        scaled: Floats = (factors / np.exp(np.log(factors).mean())).astype(np.float32)
        return scaled

    def _round(
        self, x: str, seen: Range, factors: Floats | None, products: Sequence[onnx.NodeProto]
    ) -> None:
        low, high = min(0.0, float(seen.low.min())), max(0.0, float(seen.high.max()))
        scale = max((high - low) / 255, 1e-12)
        self._constant(f"{x}.scale", np.array(scale, dtype=np.float32))
        self._constant(f"{x}.zero", np.array(round(-low / scale), dtype=np.uint8))
        given, added = x, self._added.setdefault(x, [])
        if factors is not None and not self._fold(x, factors, products):
            given = f"{x}.smooth"
            self._constant(f"{x}.smoothing", 1 / factors)
            added.append(helper.make_node("Mul", [x, f"{x}.smoothing"], [given], name=given))
        rounded = f"{x}.rounded"
        inputs = [given, f"{x}.scale", f"{x}.zero"]
        added.append(helper.make_node("QuantizeLinear", inputs, [rounded], name=rounded))

    def _fold(self, x: str, factors: Floats, products: Sequence[onnx.NodeProto]) -> bool:
        """Into the norm before it, where nothing else reads that: then smoothing is free."""
        norm, readers = self._maker[x], self._readers[x]
        is_norm = norm.name.endswith("norm") and norm.op_type in ("LayerNormalization", "Mul")
        if not is_norm or len(readers) > len(products):
            return False
        for name in norm.input[1:]:
            store_(self._tensors[name], name, self._array(name) / factors)
        return True

    # --- matrices ---------------------------------------------------------------------------

    def _round_product(self, node: onnx.NodeProto, x: str, factors: Floats | None) -> None:
        """A matrix with one scale a channel, its bias within the same operator."""
        name = node.input[1]
        if name not in self._rounded:  # layers may share it
            self._rounded.add(name)
            weight = self._array(name)
            if factors is not None:
                weight = weight * factors[:, None]
            scale = np.maximum(np.abs(weight).max(0) / self._steps, 1e-12).astype(np.float32)
            rounded = np.clip(np.round(weight / scale), -self._steps, self._steps)
            store_(self._tensors[name], name, rounded.astype(np.int8))
            self._constant(f"{name}.scale", scale)
            self._constant(f"{name}.zero", np.zeros(len(scale), dtype=np.int8))
        inputs = [f"{x}.rounded", name, f"{x}.scale", f"{name}.scale"]
        inputs += [f"{x}.zero", f"{name}.zero"]
        output = node.output[0]
        bias = self._bias_after(node)
        if bias is not None:
            inputs.append(next(i for i in bias.input if i != output))
            output = bias.output[0]
            self._gone.add(bias.name)
        new = helper.make_node(
            "MatMulIntegerToFloat", inputs, [output], name=node.name, domain=DOMAIN
        )
        node.CopyFrom(new)

    def _bias_after(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The sum of a product and its bias: a node called as the product without its ending."""
        readers = self._readers.get(node.output[0], [])
        if [r.name for r in readers] != [node.name.removesuffix(".product")]:
            return None
        return readers[0] if readers[0].op_type == "Add" else None

    # --- constants --------------------------------------------------------------------------

    def _array(self, name: str) -> Floats:
        found: Floats = numpy_helper.to_array(self._tensors[name])
        return found

    def _constant(self, name: str, value: npt.NDArray[Any]) -> None:
        store_(self._graph.initializer.add(), name, value)
