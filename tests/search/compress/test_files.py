from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from search.compress.configs import QuantizeConfig, SparsifyConfig
from search.compress.files import stored_precision, write_file
from search.compress.network import Compressed
from search.compress.stages import apply_stage
from search.export.errors import ExportFailed
from search.export.parity import check_parity
from search.training.evaluate import predict
from tests.search.compress.data import network, stage_data

MATRIX = "layers.0.ffn.up.weight"


def sparse() -> Compressed:
    return apply_stage(network(), SparsifyConfig(sparsity=0.6), stage_data())


def stored(path: Path, name: str) -> onnx.TensorProto:
    tensors = onnx.load(path).graph.initializer
    (found,) = (t for t in tensors if t.name.startswith(name) and len(t.dims) == 2)
    return found


@pytest.mark.parametrize(
    ("format_", "kind"),
    [
        (None, TensorProto.FLOAT),
        ("int8", TensorProto.INT8),
        ("fp16", TensorProto.FLOAT16),
    ],
)
def test_a_file_stores_weights_in_the_format_and_zeros_as_zeros(
    format_: str | None, kind: int, tmp_path: Path
) -> None:
    found = sparse()
    if format_ is not None:
        found = apply_stage(found, QuantizeConfig(format=format_), stage_data())
    path = write_file(found, tmp_path / "model.onnx")
    tensor = stored(path, MATRIX)
    assert tensor.data_type == kind
    values = numpy_helper.to_array(tensor)
    zeros = ~found.masks[MATRIX].numpy().T
    assert zeros.mean() > 0.3
    assert np.all(values[zeros] == 0)
    rows = stage_data().task.validation.spread(64)
    expected = predict(found.model, rows, found.subnet.renumbered())
    precision = stored_precision(found)
    assert precision == (format_ or "fp32")
    check_parity(path, rows, expected, found.model.shape, precision=precision)


@pytest.mark.parametrize("format_", ["bf16", "int4", "ternary", "binary"])
def test_a_format_that_no_file_has_is_refused_by_name(format_: str, tmp_path: Path) -> None:
    found = apply_stage(network(), QuantizeConfig(format=format_), stage_data())
    with pytest.raises(ExportFailed, match=format_):
        write_file(found, tmp_path / "model.onnx")


def test_halves_of_a_network_in_int8_are_refused(tmp_path: Path) -> None:
    found = replace(network(), format="fp16")
    found = replace(found, subnet=found.subnet.with_precision("int8"))
    with pytest.raises(ExportFailed, match="fp16 weights of a network in int8"):
        write_file(found, tmp_path / "model.onnx")
