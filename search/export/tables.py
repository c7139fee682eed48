"""Embedding tables in a byte a number: most of a small network's file, and no work at all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from search.export.nodes import store_

# Narrower ones (types of tokens) are a few rows that every token adds up.
MIN_ROWS = 16
STEPS = 127


def rounded_rows(
    table: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """A table (rows, features) in bytes, and each row's scale (rows, 1).

    A scale a row and not one a table: a few tokens' vectors are several times as long as others.
    """
    scale = np.maximum(np.abs(table).max(1, keepdims=True) / STEPS, 1e-12).astype(np.float32)
    return np.round(table / scale).astype(np.int8), scale


def round_tables_(model: onnx.ModelProto) -> onnx.ModelProto:
    """Tables that are only ever looked up in are stored in bytes; returns `model`.

    A row is scaled back once it is found. A language model's table stays as it is where its head
    reads it too.
    """
    graph = model.graph
    tables = {t.name: t for t in graph.initializer if _is_table(t, graph)}
    nodes = [
        new
        for node in graph.node
        for new in (_lookup(node) if node.input and node.input[0] in tables else [node])
    ]
    for name, tensor in tables.items():
        rounded, scale = rounded_rows(numpy_helper.to_array(tensor))
        store_(tensor, f"{name}.rounded", rounded)
        store_(graph.initializer.add(), f"{name}.scale", scale)
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _is_table(tensor: onnx.TensorProto, graph: onnx.GraphProto) -> bool:
    if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:
        return False
    readers = [node.op_type for node in graph.node if tensor.name in node.input]
    return set(readers) == {"Gather"} and tensor.dims[0] >= MIN_ROWS


def _lookup(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    table, places = node.input
    (found,) = node.output
    rows, scales, numbers = f"{found}.rounded", f"{found}.scale", f"{found}.numbers"
    yield helper.make_node("Gather", [f"{table}.rounded", places], [rows], name=rows)
    yield helper.make_node("Gather", [f"{table}.scale", places], [scales], name=scales)
    yield helper.make_node("Cast", [rows], [numbers], name=numbers, to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [numbers, scales], [found], name=found)
