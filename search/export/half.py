"""Weights in half precision: a file of half the size that answers and runs as the one in fp32.

Activations stay in fp32. ONNX Runtime's CPU kernels gain nothing from halves (2.95 ms in fp32,
2.96 with halved weights, 3.08 all in half: two layers of MiniLM, 64 tokens, one thread, ONNX
Runtime 1.32), while squares in RMS norms pass half's largest number at an activation of 256, and
places of tokens are no longer exact after 2,048.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from search.export.nodes import store_

LARGEST_HALF = 65504.0


def halve_(model: onnx.ModelProto) -> onnx.ModelProto:
    """Stores each matrix and table in fp16, to be cast back before use, and returns `model`.

    Runtimes cast matrices once, when they load the file. A table may be too large for that (above
    1 GiB ONNX Runtime would cast all of it in every run), so rows are cast as they are read.
    Biases and norms, a thousandth of it, stay as they are, and so does what fp16 cannot hold.
    """
    halved = {t.name for t in model.graph.initializer if _fits(t)}
    for tensor in model.graph.initializer:
        if tensor.name in halved:
            value = numpy_helper.to_array(tensor).astype(np.float16)
            store_(tensor, _stored(tensor.name), value)
    nodes = [new for node in model.graph.node for new in _reading_halves(node, halved)]
    used = {name for node in nodes for name in node.input}
    casts = [_cast(_stored(name), name) for name in sorted(halved & used)]
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    return model


def _fits(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
        return False
    # Of NaN it is not true either.
    return bool(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0) <= LARGEST_HALF)


def _reading_halves(node: onnx.NodeProto, halved: Set[str]) -> list[onnx.NodeProto]:
    """The node itself, or a lookup in a halved table and the cast of what it finds."""
    if node.op_type != "Gather" or node.input[0] not in halved:
        return [node]
    (found,) = node.output
    rows = f"{found}.half"
    table, places = node.input
    lookup = helper.make_node("Gather", [_stored(table), places], [rows], name=rows)
    return [lookup, _cast(rows, found)]


def _stored(name: str) -> str:
    return f"{name}.stored"


def _cast(name: str, to: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [to], name=to, to=TensorProto.FLOAT)
