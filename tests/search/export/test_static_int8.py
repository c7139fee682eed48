from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from search.compress.network import copied
from search.errors import InvalidInput
from search.export import writers
from search.export.package import export_onnx
from search.export.parity import ParityError
from search.export.running import answers_of, open_network
from search.export.writers import Subject, export
from search.model.linears import layer_matrix_names
from search.model.transformer import ElasticTransformer
from search.training.evaluate import predict
from tests.search.compress.data import ordered, teacher
from tests.search.export.networks import ALL
from tests.search.export.subjects import FAMILIES, data_of, no_rows, padded, subject_of
from tests.search.families import RARE, network_of

NAME = "onnx/model_int8_static.onnx"


def trained(model: ElasticTransformer | None = None) -> Subject:
    return Subject(model=model or teacher(), calibration=ordered(128), judged=ordered(128, seed=1))


def graph_of(path: Path) -> onnx.GraphProto:
    return onnx.load(path).graph


@pytest.mark.parametrize("name", [*FAMILIES, "llama", "bert/pairs", "bert/tags", "bert/vectors"])
def test_every_matrix_of_uneven_layers_is_in_int8_and_answers_agree(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random networks of three labels are torn between them.
    monkeypatch.setattr(writers, "MIN_INT8_AGREEMENT", 0.85)
    subject = subject_of(name)
    found = export("onnx-int8-static", subject, tmp_path)
    assert (found.precision, found.note) == ("int8", "")
    graph = graph_of(tmp_path / NAME)
    kinds = Counter(node.op_type for node in graph.node)
    has_large_head = subject.model.shape.task == "language-modelling"
    assert kinds["MatMulIntegerToFloat"] == len(layer_matrix_names(subject.model)) + has_large_head
    stored = {t.name: t.data_type for t in graph.initializer}
    for matrix in layer_matrix_names(subject.model):
        assert stored[matrix] == TensorProto.INT8
    given = padded(subject.model.shape)
    with torch.no_grad():
        expected = subject.model(given).logits
    answers = open_network(tmp_path / NAME)(given)
    if subject.model.shape.answers_per_token:
        answers, expected = (x[given.attention_mask.bool()] for x in (answers, expected))
    assert float(torch.nn.functional.cosine_similarity(answers, expected).mean()) > 0.97


def test_a_trained_classifier_answers_as_in_fp32(tmp_path: Path) -> None:
    found = export("onnx-int8-static", trained(), tmp_path)
    assert found.parity.agreement > 0.98
    assert found.size_bytes == (tmp_path / NAME).stat().st_size


def outlying(model: ElasticTransformer, factor: float = 1000.0) -> ElasticTransformer:
    """Nearly the same answers in fp32, by way of one neuron a layer that is far larger than the
    others: what int8 with one scale for all of them cannot hold."""
    model = copied(model).eval()
    with torch.no_grad():
        for layer in model.layers:
            layer.ffn.up.weight[0] *= factor
            layer.ffn.up.bias[0] *= factor
            layer.ffn.down.weight[:, 0] /= factor
    return model


def test_a_few_large_features_cost_static_int8_nothing_and_dynamic_int8_a_lot(
    tmp_path: Path,
) -> None:
    subject = trained(outlying(teacher()))
    expected = predict(subject.model, subject.judged)
    export("onnx-int8-static", subject, tmp_path)
    dynamic = export_onnx(
        subject.model, subject.model.sizes.with_precision("int8"), tmp_path / "dynamic.onnx"
    )
    errors = [
        float((answers_of(open_network(path), subject.judged) - expected).norm())
        for path in (tmp_path / NAME, dynamic)
    ]
    assert errors[0] < 0.25 * errors[1]


@pytest.mark.parametrize(("name", "num_added"), [("bert", 9), ("vit", 3)])
def test_smoothing_is_free_where_a_norm_feeds_nothing_else(
    name: str, num_added: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three products a layer read something to smooth; before attention's last nothing is."""
    monkeypatch.setattr(writers, "MIN_INT8_AGREEMENT", 0.0)
    export("onnx-int8-static", subject_of(name), tmp_path)
    names = [node.name for node in graph_of(tmp_path / NAME).node]
    assert len([name for name in names if name.endswith(".smooth")]) == num_added


def test_where_too_few_answers_agree_the_worst_layer_stays_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "by_harm", lambda *_: (2, 0, 1))
    agreements = iter([0.5, 1.0])

    def compared(*arguments: object, **options: object) -> object:
        return replace(real(*arguments, **options), agreement=next(agreements))  # type: ignore

    real = writers.compare
    monkeypatch.setattr(writers, "compare", compared)
    found = export("onnx-int8-static", subject_of("bert"), tmp_path)
    assert found.note == "in fp32: layers 2"
    stored = {t.name: t.data_type for t in graph_of(tmp_path / NAME).initializer}
    assert stored["layers.2.attn.q.weight"] == TensorProto.FLOAT
    assert stored["layers.1.attn.q.weight"] == TensorProto.INT8


def test_a_file_that_never_agrees_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "MIN_INT8_AGREEMENT", 1.01)
    with pytest.raises(ParityError, match=r"model_int8_static\.onnx answers as .* rows only"):
        export("onnx-int8-static", subject_of("bert"), tmp_path)


def test_layers_that_a_winner_keeps_in_fp32_stay_so(tmp_path: Path) -> None:
    subject = trained(copied(teacher()).eval())
    subject.model.sizes = replace(subject.model.sizes, precision="int8", float_layers=(1,))
    found = export("onnx-int8-static", subject, tmp_path)
    assert found.note == "in fp32: layers 1"


def test_where_sums_would_saturate_weights_keep_to_seven_bits(tmp_path: Path) -> None:
    peaks = {}
    for bits in (7, 8):
        model = copied(teacher()).eval()
        model.weight_bits = bits
        export("onnx-int8-static", trained(model), tmp_path)
        (weight,) = (
            numpy_helper.to_array(t)
            for t in graph_of(tmp_path / NAME).initializer
            if t.name == "layers.0.ffn.up.weight"
        )
        peaks[bits] = int(np.abs(weight.astype(int)).max())
    assert peaks == {7: 64, 8: 127}


@pytest.mark.parametrize(
    ("of", "reason"),
    [("", "there are no rows"), ("vit", "the model reads texts"), ("bert/tags", "another task")],
)
def test_rows_to_calibrate_with_are_refused_where_they_are_none_or_of_another_task(
    of: str, reason: str, tmp_path: Path
) -> None:
    rows = data_of(ALL[of], 8) if of else no_rows()
    subject = replace(subject_of("bert"), calibration=rows)
    with pytest.raises(InvalidInput, match=reason) as refused:
        export("onnx-int8-static", subject, tmp_path)
    assert refused.value.field == "calibration"


@pytest.mark.parametrize("name", ["low-rank bert", "shared bert", "linear bert", "light bert"])
def test_matrices_of_lighter_layers_are_rounded_once_and_answers_agree(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "MIN_INT8_AGREEMENT", 0.85)
    shape = RARE[name]
    subject = Subject(
        model=network_of(shape), calibration=data_of(shape, 64), judged=data_of(shape, 48, seed=2)
    )
    found = export("onnx-int8-static", subject, tmp_path)
    assert (found.precision, found.note) == ("int8", "")
    stored = {t.name: t.data_type for t in graph_of(tmp_path / NAME).initializer}
    matrices = layer_matrix_names(subject.model)
    assert all(stored[matrix] == TensorProto.INT8 for matrix in matrices)
    given = padded(shape)
    with torch.no_grad():
        expected = subject.model(given).logits
    answers = open_network(tmp_path / NAME)(given)
    assert float(torch.nn.functional.cosine_similarity(answers, expected).mean()) > 0.97
