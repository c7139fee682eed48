"""Every format of a network whose layers differ answers as the network, alone and in batches."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from search.export import writers
from search.export.errors import ExportFailed
from search.export.formats import FORMATS, FormatName
from search.export.openvino_int8 import Int8Outcome
from search.export.parity import Parity, ParityError
from search.export.running import open_network
from search.export.writers import ROUNDING, Subject, export
from tests.search.export.subjects import FAMILIES, data_of, padded, subject_of
from tests.search.families import ALL_AT_ONCE, network_of

FLOATS: tuple[FormatName, ...] = ("onnx-fp16", "openvino", "pt2")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", FLOATS)
def test_a_file_in_floating_point_answers_as_the_network(
    kind: FormatName, name: str, tmp_path: Path
) -> None:
    subject = subject_of(name)
    found = export(kind, subject, tmp_path)
    assert found.parity.num_rows == 48
    assert found.parity.agreement > 0.97
    assert next(iter(found.files)) == FORMATS[kind].file
    assert found.size_bytes == sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    given = padded(subject.model.shape)
    with torch.no_grad():
        expected = subject.model(given).logits
    answers = open_network(tmp_path / FORMATS[kind].file)(given)
    assert answers.shape == expected.shape
    real = slice(None)
    if subject.model.shape.answers_per_token:
        real = given.attention_mask.bool()
    allowed = 2e-2 if kind == "onnx-fp16" else 1e-4
    np.testing.assert_allclose(answers[real], expected[real], atol=allowed, rtol=allowed)


@pytest.mark.parametrize("kind", FLOATS)
def test_low_rank_shared_layers_and_linear_attention_are_written_too(
    kind: FormatName, tmp_path: Path
) -> None:
    shape = ALL_AT_ONCE["bert"]
    subject = Subject(
        model=network_of(shape), calibration=data_of(shape, 8), judged=data_of(shape, 48, seed=2)
    )
    found = export(kind, subject, tmp_path)
    assert found.parity.agreement > 0.97
    given = padded(shape)
    with torch.no_grad():
        expected = subject.model(given).logits
    allowed = 2e-2 if kind == "onnx-fp16" else 1e-4
    answers = open_network(tmp_path / FORMATS[kind].file)(given)
    np.testing.assert_allclose(answers, expected, atol=allowed, rtol=allowed)


@pytest.mark.parametrize("name", FAMILIES)
def test_int8_for_openvino_agrees_or_keeps_layers_in_fp32(name: str, tmp_path: Path) -> None:
    found = export("openvino-int8", subject_of(name), tmp_path)
    assert found.precision in ("int8", "fp32")
    if found.precision == "int8":
        assert next(iter(found.files)) == FORMATS["openvino-int8"].file
        assert found.parity.agreement >= 0.95
    written = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()}
    assert written == set(found.files)


@pytest.mark.parametrize("kind", FLOATS)
def test_a_network_of_int8_is_written_in_floating_point_and_says_so(
    kind: FormatName, tmp_path: Path
) -> None:
    found = export(kind, subject_of("bert", "int8"), tmp_path)
    assert found.precision != "int8"
    assert found.note == ROUNDING
    assert export(kind, subject_of("bert"), tmp_path).note == ""


def test_where_int8_never_agrees_the_file_in_fp32_is_delivered_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = Int8Outcome(
        parity=Parity(max_error=1.0, agreement=0.8, num_rows=48), float_layers=(), is_float=True
    )
    monkeypatch.setattr("search.export.openvino_int8.quantize_openvino", lambda *_, **__: outcome)
    found = export("openvino-int8", subject_of("bert"), tmp_path)
    assert list(found.files) == ["openvino/openvino_model.xml", "openvino/openvino_model.bin"]
    assert found.precision == "fp32"
    assert "80.0%" in found.note
    assert found.parity.agreement == 1.0


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExportFailed, match=r"openvino is not installed.*snugnet\[openvino\]"):
        export("openvino", subject_of("bert"), tmp_path)


def test_a_file_that_answers_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = writers._float_graph(subject_of("distilbert").model)
    monkeypatch.setattr(writers, "_float_graph", lambda _: graph)
    with pytest.raises(ParityError, match=r"model_fp16\.onnx"):
        export("onnx-fp16", subject_of("bert"), tmp_path)
