from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from search.export.graph import build_onnx
from search.export.half import halve_
from search.model.extract import to_arrays
from tests.search.export.networks import subnet_of
from tests.search.families import SHAPES


def built(name: str) -> onnx.ModelProto:
    model = subnet_of(name, "uneven and narrow")
    return build_onnx(model.shape, model.sizes, to_arrays(model))


@pytest.mark.parametrize("name", SHAPES)
def test_matrices_and_tables_are_halves_and_the_graph_is_still_valid(name: str) -> None:
    before = built(name)
    num_bytes = sum(len(t.raw_data) for t in before.graph.initializer)
    after = halve_(before)
    onnx.checker.check_model(after, full_check=True)
    kinds = {t.data_type for t in after.graph.initializer if len(t.dims) >= 2}
    assert kinds == {TensorProto.FLOAT16}
    assert sum(len(t.raw_data) for t in after.graph.initializer) < 0.65 * num_bytes
    assert after.graph.input[0].type.tensor_type.elem_type != TensorProto.FLOAT16
    assert after.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize("value", [1e5, np.inf, np.nan])
def test_what_a_half_cannot_hold_stays_as_it_is(value: float) -> None:
    model = built("bert")
    weight = next(t for t in model.graph.initializer if t.name == "layers.0.attn.q.weight")
    changed = numpy_helper.to_array(weight).copy()
    changed[0, 0] = value
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    halve_(model)
    kept = [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert "layers.0.attn.q.weight" in kept
    assert "layers.0.attn.k.weight" not in kept


def test_rows_of_a_table_are_cast_as_they_are_read_and_a_tied_head_as_a_matrix() -> None:
    """A runtime that cannot fold the cast of a large table would repeat it in every run."""
    for name, num_matrix_casts in (("bert", 0), ("gpt2", 1)):
        nodes = halve_(built(name)).graph.node
        (lookup,) = [n for n in nodes if n.op_type == "Gather" and "word" in n.input[0]]
        assert lookup.input[0] == "embeddings.word.weight.stored"
        casts = [n for n in nodes if n.op_type == "Cast" and n.input[0] == lookup.input[0]]
        assert len(casts) == num_matrix_casts
