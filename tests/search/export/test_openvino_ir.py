from __future__ import annotations

from pathlib import Path

import onnx
import openvino
import pytest

from search.export.errors import ExportFailed
from search.export.graph import build_onnx
from search.export.openvino_ir import SETTINGS, OpenVinoNetwork, weights_file, write_openvino
from search.export.parity import check_parity
from search.model.extract import to_arrays
from tests.search.export.networks import ALL
from tests.search.export.subjects import FAMILIES, subject_of


def onnx_of(name: str, folder: Path) -> Path:
    model = subject_of(name).model
    onnx.save(build_onnx(model.shape, model.sizes, to_arrays(model)), folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("name", [*FAMILIES, "qwen3", "bert/pairs", "bert/tags", "bert/vectors"])
def test_a_file_answers_as_the_network_for_every_kind_of_task(name: str, tmp_path: Path) -> None:
    subject = subject_of(name)
    path = write_openvino(onnx_of(name, tmp_path), tmp_path / "model.xml")
    check_parity(path, subject.judged, subject.expected, ALL[name], precision="fp32")


@pytest.mark.parametrize("name", FAMILIES)
def test_halved_weights_are_half_the_file_and_answer_alike(name: str, tmp_path: Path) -> None:
    subject, source = subject_of(name), onnx_of(name, tmp_path)
    whole = write_openvino(source, tmp_path / "whole.xml")
    half = write_openvino(source, tmp_path / "half.xml", weights="fp16")
    sizes = [weights_file(path).stat().st_size for path in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    check_parity(half, subject.judged, subject.expected, ALL[name], precision="fp16")


def test_it_is_computed_in_fp32_whatever_the_processor_would_rather(tmp_path: Path) -> None:
    path = write_openvino(onnx_of("bert", tmp_path), tmp_path / "model.xml")
    compiled = openvino.Core().compile_model(path, "CPU", SETTINGS)
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32


def test_a_file_that_is_no_network_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a network")
    with pytest.raises(ExportFailed, match="openvino: "):
        write_openvino(tmp_path / "model.onnx", tmp_path / "model.xml")
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(ExportFailed, match="openvino: "):
        OpenVinoNetwork(tmp_path / "model.xml")


def test_other_weights_than_the_two_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'bf16'"):
        write_openvino(tmp_path / "model.onnx", tmp_path / "model.xml", weights="bf16")
