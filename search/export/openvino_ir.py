"""OpenVINO's own format, a graph (.xml) and its weights (.bin), made from our ONNX graph."""

from __future__ import annotations

from pathlib import Path

import openvino
import torch
from torch import Tensor

from search.export.errors import converting
from search.export.running import feed_of
from search.model.transformer import Batch

# Without a word it computes in bf16 where the CPU can: a file would answer otherwise elsewhere.
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
WEIGHTS = ("fp32", "fp16")


def write_openvino(onnx_path: Path, path: Path, *, weights: str = "fp32") -> Path:
    """Writes `path` (.xml) and the .bin beside it.

    Args:
        onnx_path: a network in fp32.
        weights: `fp16` stores matrices in half; it is computed in fp32 either way.

    Raises:
        ExportFailed: OpenVINO cannot read the network.
        ValueError: `weights` is neither.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {WEIGHTS}, got {weights!r}")
    with converting("openvino"):
        model = openvino.Core().read_model(onnx_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Its own default is to halve every weight.
        openvino.save_model(model, path, compress_to_fp16=weights == "fp16")
    return path


def weights_file(path: Path) -> Path:
    return path.with_suffix(".bin")


class OpenVinoNetwork:
    """A file in OpenVINO on one thread, in fp32 wherever its operators are not int8."""

    def __init__(self, path: Path) -> None:
        with converting("openvino"):
            self._compiled = openvino.Core().compile_model(path, "CPU", SETTINGS)
        self._wanted = {port.any_name for port in self._compiled.inputs}

    def __call__(self, batch: Batch) -> Tensor:
        """Logits, or the vectors of a model without a head."""
        # A copy: the request that owns the output may be run again.
        return torch.tensor(self._compiled(feed_of(batch, self._wanted))[0])
