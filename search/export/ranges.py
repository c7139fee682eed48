"""Between what a network's matrices read their inputs, learnt by running its file on data."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper

from search.export.errors import converting
from search.export.external import save_onnx
from search.export.running import Feed

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Range:
    """Least and greatest value of each feature, (features,) each."""

    low: Floats
    high: Floats

    @property
    def peak(self) -> Floats:
        """The largest size of each feature, (features,)."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def divided(self, by: Floats) -> Self:
        """Of the same features, each divided by a positive number."""
        return type(self)(self.low / by, self.high / by)

    def joined(self, values: Floats) -> Self:
        """With `values` (tokens, features) seen too."""
        return type(self)(
            np.minimum(self.low, values.min(0)), np.maximum(self.high, values.max(0))
        )


def products_of(
    graph: onnx.GraphProto, float_nodes: Collection[str] = ()
) -> dict[str, list[onnx.NodeProto]]:
    """Products with a matrix of weights, by what they multiply; `float_nodes` are left out."""
    weights = {tensor.name for tensor in graph.initializer}
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights and node.name not in float_nodes:
            found.setdefault(node.input[0], []).append(node)
    return found


def ranges_of(
    model: onnx.ModelProto, names: Sequence[str], feeds: Iterable[Feed]
) -> Mapping[str, Range]:
    """Of these values of a graph, over all feeds; `model` is used up.

    Raises:
        ExportFailed: ONNX Runtime does not run it.
    """
    ranges: dict[str, Range] = {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        del model.graph.output[:]
        model.graph.output.extend(_of_any_size(x) for x in names)
        save_onnx(model, path)
        with converting("onnxruntime"):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            for feed in feeds:
                for name, found in zip(names, session.run(list(names), feed), strict=True):
                    values = found.reshape(-1, found.shape[-1])
                    seen = ranges.get(name, Range(values.min(0), values.max(0)))
                    ranges[name] = seen.joined(values)
    return ranges


def _of_any_size(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
