"""A compressed network as an ONNX file: its own vocabulary, masks as zeros, weights as stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx

from search.compress.network import Compressed
from search.export.errors import ExportFailed
from search.export.external import save_onnx
from search.export.graph import build_onnx
from search.export.half import halve_
from search.export.int4 import quantize_int4_
from search.export.package import export_onnx
from search.model.extract import to_arrays


def stored_precision(network: Compressed) -> str:
    """Of the file: what its weights are stored in."""
    return network.format or network.subnet.precision


def write_file(network: Compressed, path: Path, *, phase: str = "encode") -> Path:
    """Writes `path`.

    Raises:
        ExportFailed: no file holds weights of the network's format.
    """
    if network.format is None:
        return export_onnx(network.model, network.subnet, path, phase=phase)
    if network.format not in _STORES or network.subnet.precision != "fp32":
        raise ExportFailed(
            f"no file has {network.format} weights of a network in {network.subnet.precision}"
        )
    model = network.model
    graph = build_onnx(model.shape, model.sizes, to_arrays(model), phase=phase)
    save_onnx(_STORES[network.format](graph), path)
    return path


# What `suitability.FILE_FORMATS` promises.
_STORES: Mapping[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "fp16": halve_,
    "int4": quantize_int4_,
}
