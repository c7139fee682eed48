"""A trained network as an ONNX file in its precision."""

from __future__ import annotations

from pathlib import Path

from search.export.external import external_file, save_onnx
from search.export.graph import build_onnx
from search.export.quantize import float_nodes, quantize_int8
from search.model.extract import to_arrays
from search.model.fakequant import REDUCED_WEIGHT_BITS
from search.model.transformer import ElasticTransformer
from search.space import SubnetConfig


def export_onnx(
    model: ElasticTransformer, subnet: SubnetConfig, path: Path, *, phase: str = "encode"
) -> Path:
    """Writes `path`; int8 rounds to as many bits as the model was trained for.

    Weights of more than 2 GB go to `external_file(path)`.

    Args:
        subnet: what `model` was extracted as: its precision, and its layers that keep fp32.
    """
    subnet = subnet.renumbered()
    graph = build_onnx(model.shape, subnet, to_arrays(model), phase=phase)
    if subnet.precision == "fp32":
        save_onnx(graph, path)
        return path
    float_path = path.with_name(f"{path.stem}-fp32.onnx")
    save_onnx(graph, float_path)
    quantize_int8(
        float_path,
        path,
        float_nodes=float_nodes(model.shape, subnet),
        reduce_range=model.weight_bits == REDUCED_WEIGHT_BITS,
    )
    for file in (float_path, external_file(float_path)):
        file.unlink(missing_ok=True)
    return path
