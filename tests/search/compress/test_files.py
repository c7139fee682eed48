from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from search.compress.configs import FORMATS, QuantizeConfig, SparsifyConfig
from search.compress.files import stored_precision, write_file
from search.compress.network import Compressed
from search.compress.stages import apply_stage
from search.compress.suitability import FILE_FORMATS, is_simulated
from search.export.errors import ExportFailed
from search.export.openvino_ir import OpenVinoNetwork
from search.export.parity import check_parity, compare
from search.export.running import OnnxNetwork, answers_of
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


def test_a_file_of_four_bits_answers_as_the_network_that_was_rounded(tmp_path: Path) -> None:
    """But for a table of positions, to which a file adds what every token has before it rounds."""
    found = apply_stage(sparse(), QuantizeConfig(format="int4"), stage_data())
    path = write_file(found, tmp_path / "model.onnx")
    (packed,) = (t for t in onnx.load(path).graph.initializer if t.name == MATRIX)
    assert (packed.data_type, list(packed.dims)) == (TensorProto.UINT8, [64, 1, 16])
    zeros = ~found.masks[MATRIX].numpy()
    halves = numpy_helper.to_array(packed)
    whole = np.stack([halves & 15, halves >> 4], -1).reshape(64, 32)
    assert np.all(whole[zeros] == 8)
    rows = stage_data().task.validation.spread(64)
    expected = predict(found.model, rows)
    parity = check_parity(path, rows, expected, found.model.shape, precision="int4")
    assert parity.agreement == 1.0
    assert parity.max_error < 0.02 * float(expected.abs().max())
    assert path.stat().st_size < 0.6 * write_file(sparse(), tmp_path / "float.onnx").stat().st_size


@pytest.mark.parametrize(
    ("runtime", "format_"),
    [(runtime, name) for name, readers in FILE_FORMATS.items() for runtime in readers],
)
def test_a_runtime_reads_what_the_table_says(runtime: str, format_: str, tmp_path: Path) -> None:
    found = apply_stage(network(), QuantizeConfig(format=format_), stage_data())
    path = write_file(found, tmp_path / "model.onnx")
    rows = stage_data().task.validation.spread(32)
    answers = answers_of(
        OpenVinoNetwork(path) if runtime == "openvino" else OnnxNetwork(path), rows
    )
    expected = predict(found.model, rows)
    assert compare(answers, expected, found.model.shape, num_rows=32).agreement > 0.95


def test_what_neither_a_file_nor_a_precision_has_is_simulated() -> None:
    simulated = [name for name in FORMATS if is_simulated(name)]
    assert simulated == ["int8-integer", "bf16", "ternary", "binary"]


@pytest.mark.parametrize("format_", ["bf16", "int8-integer", "ternary", "binary"])
def test_a_format_that_no_file_has_is_refused_by_name(format_: str, tmp_path: Path) -> None:
    found = apply_stage(network(), QuantizeConfig(format=format_), stage_data())
    with pytest.raises(ExportFailed, match=format_):
        write_file(found, tmp_path / "model.onnx")


def test_halves_of_a_network_in_int8_are_refused(tmp_path: Path) -> None:
    found = replace(network(), format="fp16")
    found = replace(found, subnet=found.subnet.with_precision("int8"))
    with pytest.raises(ExportFailed, match="fp16 weights of a network in int8"):
        write_file(found, tmp_path / "model.onnx")
