from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from search.export.graph import build_onnx
from search.export.running import OnnxNetwork
from search.export.tables import round_tables_, rounded_rows
from search.model.extract import to_arrays
from tests.search.export.networks import subnet_of
from tests.search.export.subjects import padded


def test_a_row_is_off_by_half_a_step_of_its_own_at_most() -> None:
    table = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    table[3] *= 100
    table[7] = 0
    rounded, scale = rounded_rows(table)
    assert (np.abs(rounded * scale - table) <= scale / 2 + 1e-6).all()
    assert scale[3] > 20 * np.median(scale)
    assert not rounded[7].any()


@pytest.mark.parametrize(("name", "num_tables"), [("bert", 2), ("gpt2", 1), ("llama", 1)])
def test_tables_take_a_byte_a_number_unless_a_head_reads_them(name: str, num_tables: int) -> None:
    model = subnet_of(name, "uneven and narrow")
    after = round_tables_(build_onnx(model.shape, model.sizes, to_arrays(model)))
    onnx.checker.check_model(after, full_check=True)
    bytes_ = [t.name for t in after.graph.initializer if t.data_type == TensorProto.INT8]
    assert len(bytes_) == num_tables
    assert ("embeddings.word.weight.rounded" in bytes_) == (not model.shape.has_tied_head)
    given = padded(model.shape)
    with torch.no_grad():
        expected = model(given).logits
    found = OnnxNetwork(after.SerializeToString())(given)
    assert float((found - expected).abs().max()) < 0.1 * float(expected.abs().max())
