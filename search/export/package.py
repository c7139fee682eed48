"""A trained network as an ONNX file in its precision."""

from __future__ import annotations

from pathlib import Path

import onnx

from search.export.graph import build_onnx
from search.export.quantize import quantize_int8
from search.model.extract import to_arrays
from search.model.fakequant import REDUCED_WEIGHT_BITS
from search.model.transformer import ElasticTransformer


def export_onnx(model: ElasticTransformer, precision: str, path: Path) -> Path:
    """Writes `path`; int8 rounds to as many bits as the model was trained for."""
    graph = build_onnx(model.shape, model.sizes, to_arrays(model))
    if precision == "fp32":
        onnx.save(graph, path)
        return path
    float_path = path.with_name(f"{path.stem}-fp32.onnx")
    onnx.save(graph, float_path)
    quantize_int8(float_path, path, reduce_range=model.weight_bits == REDUCED_WEIGHT_BITS)
    float_path.unlink()
    return path
