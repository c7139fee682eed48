"""The ONNX file of a network, for the runtimes that read one."""

from __future__ import annotations

from pathlib import Path

import onnx

from predictors.runtimes.base import Network
from search.export.graph import build_onnx
from search.export.quantize import float_nodes, quantize_int8


def onnx_file(network: Network, phase: str = "encode") -> Path:
    """Its own file, or one written into its folder with random weights."""
    if network.file is not None:
        return network.file
    assert network.subnet is not None
    path = network.folder / f"{network.key}.onnx"
    model = build_onnx(
        network.shape,
        network.subnet.renumbered(),
        None,
        phase=phase,
        vocab_size=network.num_token_ids or None,
    )
    onnx.save(model, path)
    if network.subnet.precision == "int8":
        kept = float_nodes(network.shape, network.subnet.renumbered())
        quantize_int8(path, path, float_nodes=kept, for_timing=True)
    return path


def drop_written_file(network: Network) -> None:
    """Deletes what `onnx_file` wrote; a network's own file stays."""
    (network.folder / f"{network.key}.onnx").unlink(missing_ok=True)
