from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from search.compress.network import copied
from search.compress.rounding import round_, round_int4
from search.export.int4 import BLOCK, packed_blocks
from search.export.running import answers_of, open_network
from search.export.writers import Subject, export
from search.model.linears import layer_matrix_names
from search.model.transformer import ElasticTransformer
from search.training.evaluate import predict
from tests.search.compress.data import ordered, teacher
from tests.search.export.subjects import FAMILIES, data_of, subject_of
from tests.search.families import RARE, network_of


def stored(model: ElasticTransformer) -> ElasticTransformer:
    """The network as a recipe rounds it; what all tokens of type 0 have in common is added to
    positions first, as a file does."""
    other = copied(model).eval()
    if other.shape.num_token_types:
        with torch.no_grad():
            other.embeddings.position.weight += other.embeddings.token_type.weight[0]
            other.embeddings.token_type.weight[0] = 0.0
    round_(other, "int4")
    return other


def test_blocks_hold_what_torch_rounds_them_to() -> None:
    weight = torch.randn(6, 70, generator=torch.Generator().manual_seed(0))
    weight[2, 32:64] = 0
    packed, scales = packed_blocks(weight.numpy())
    assert packed.shape == (6, 3, BLOCK // 2)
    halves = np.stack([packed & 15, packed >> 4], -1).reshape(6, 3, BLOCK)
    unpacked = ((halves.astype(np.float32) - 8) * scales[..., None]).reshape(6, -1)[:, :70]
    np.testing.assert_array_equal(unpacked, round_int4(weight).numpy())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_of_four_bits_is_the_network_that_a_recipe_simulates(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Widths of 16 and 20, which no block fits, too. Nothing here was trained for four bits."""
    monkeypatch.setattr("search.export.parity.MIN_INT8_AGREEMENT", 0.0)
    subject = subject_of(name)
    found = export("onnx-int4", subject, tmp_path)
    path = tmp_path / next(iter(found.files))
    answers = answers_of(open_network(path), subject.judged)
    expected = predict(stored(subject.model), subject.judged)
    torch.testing.assert_close(answers, expected, atol=1e-3, rtol=1e-3)
    assert found.parity.max_error > 10 * float((answers - expected).abs().max())
    nodes = [n for n in onnx.load(path).graph.node if n.op_type == "MatMulNBits"]
    assert len(nodes) == len(layer_matrix_names(subject.model))


@pytest.mark.parametrize("name", ["low-rank bert", "shared bert", "light bert"])
def test_matrices_of_lighter_layers_are_packed_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.export.parity.MIN_INT8_AGREEMENT", 0.0)
    shape = RARE[name]
    subject = Subject(
        model=network_of(shape), calibration=data_of(shape, 8), judged=data_of(shape, 48, seed=2)
    )
    found = export("onnx-int4", subject, tmp_path)
    path = tmp_path / next(iter(found.files))
    answers = answers_of(open_network(path), subject.judged)
    expected = predict(stored(subject.model), subject.judged)
    torch.testing.assert_close(answers, expected, atol=1e-3, rtol=1e-3)
    scales = [t.name for t in onnx.load(path).graph.initializer if t.name.endswith("weight.scale")]
    in_layers = [name for name in scales if name.startswith("layers.")]
    assert len(in_layers) == len(layer_matrix_names(subject.model))


def test_a_trained_classifier_in_four_bits_answers_alike_in_a_fraction_of_the_bytes(
    tmp_path: Path,
) -> None:
    subject = Subject(model=teacher(), calibration=ordered(64), judged=ordered(128, seed=1))
    found = export("onnx-int4", subject, tmp_path)
    assert found.precision == "int4"
    assert found.parity.agreement > 0.95
    graph = onnx.load(tmp_path / "onnx/model_q4.onnx").graph
    sizes = {t.name: len(t.raw_data) for t in graph.initializer}
    assert sizes["layers.0.ffn.up.weight"] == 64 * 32 // 2
    assert sizes["embeddings.word.weight.rounded"] == teacher().shape.vocab_size * 32
