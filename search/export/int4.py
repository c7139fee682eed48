"""Weights of four bits in a file that ONNX Runtime multiplies by as they are: `MatMulNBits`.

A runtime unpacks a block, multiplies in fp32 and throws it away: a file of a fraction of the size
that is no faster (docs/lab-notes.md).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from search.export.nodes import store_
from search.export.quantize import HEAD_NODE, SPREAD_NODE
from search.export.ranges import Floats, products_of
from search.export.tables import round_tables_

# As `search.compress.rounding.GROUP` has it: what a recipe simulates is what is stored.
BLOCK = 32
BITS = 4
# As a recipe has it too.
FLOAT_NODES = (HEAD_NODE, SPREAD_NODE)
DOMAIN = "com.microsoft"
Bytes = npt.NDArray[np.uint8]


def quantize_int4_(model: onnx.ModelProto) -> onnx.ModelProto:
    """Stores the layers' matrices of a graph in fp32 in four bits, its tables in eight; returns
    it.

    Activations stay in fp32: `accuracy_level` 4, which rounds them too, is faster but no longer
    what was simulated.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    sizes: dict[str, tuple[int, ...]] = {}
    for x, products in products_of(model.graph, FLOAT_NODES).items():
        for node in products:
            name = node.input[1]
            if name not in sizes:  # layers may share it
                weight = numpy_helper.to_array(tensors[name])
                sizes[name] = weight.shape
                packed, scales = packed_blocks(weight.T)
                store_(tensors[name], name, packed)
                store_(model.graph.initializer.add(), f"{name}.scale", scales)
            node.CopyFrom(_product(node, x, sizes[name]))
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return round_tables_(model)


def packed_blocks(weight: Floats) -> tuple[Bytes, Floats]:
    """A matrix (out, in) in blocks of a row, rounded as `rounding.round_int4` does.

    Returns:
        Two weights a byte, the first in the lower half, 8 standing for zero: (out, blocks,
        BLOCK / 2). A scale each, (out, blocks).
    """
    rows, columns = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -columns % BLOCK)))
    blocks = padded.reshape(rows, -1, BLOCK)
    places = np.abs(blocks).argmax(2, keepdims=True)
    # The largest becomes -8, the end that has a step more.
    scales = np.take_along_axis(blocks, places, 2) / np.float32(-8)
    scales = np.where(scales == 0, np.float32(1), scales)
    whole = (np.clip(np.round(blocks / scales), -8, 7) + 8).astype(np.uint8)
    packed: Bytes = np.bitwise_or(whole[..., 0::2], whole[..., 1::2] << 4)
    return packed, scales[..., 0]


def _product(node: onnx.NodeProto, x: str, size: tuple[int, ...]) -> onnx.NodeProto:
    inputs = [x, node.input[1], f"{node.input[1]}.scale"]
    return helper.make_node(
        "MatMulNBits",
        inputs,
        list(node.output),
        name=node.name,
        domain=DOMAIN,
        K=size[0],
        N=size[1],
        bits=BITS,
        block_size=BLOCK,
    )
