from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from search.export import external
from search.export.external import external_file, files_of, save_onnx, weight_bytes
from search.export.graph import build_onnx
from search.export.package import export_onnx
from search.export.parity import check_parity
from search.export.writers import export
from search.model.extract import to_arrays
from search.training.evaluate import predict
from tests.search.export.subjects import subject_of


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MAX_INLINE_BYTES", 1000)
    monkeypatch.setattr(external, "MIN_EXTERNAL_BYTES", 128)


def built(name: str = "bert") -> onnx.ModelProto:
    model = subject_of(name).model
    return build_onnx(model.shape, model.sizes, to_arrays(model))


def test_a_small_network_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert save_onnx(built(), path) == (path,)
    assert files_of(path) == (path,)


@pytest.mark.usefixtures("small_limit")
def test_of_a_large_network_the_weights_are_beside_the_graph(tmp_path: Path) -> None:
    path, model = tmp_path / "model.onnx", built()
    num_bytes = weight_bytes(model)
    assert save_onnx(model, path) == (path, tmp_path / "model.onnx_data")
    assert external_file(path).stat().st_size > 0.9 * num_bytes
    onnx.checker.check_model(path)


@pytest.mark.usefixtures("small_limit")
def test_writing_again_does_not_append(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    sizes = []
    for _ in range(2):
        save_onnx(built(), path)
        sizes.append(external_file(path).stat().st_size)
    assert sizes[0] == sizes[1]


def test_a_file_of_weights_goes_when_it_is_not_needed_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    with monkeypatch.context() as patched:
        patched.setattr(external, "MAX_INLINE_BYTES", 1000)
        save_onnx(built(), path)
    save_onnx(built(), path)
    assert files_of(path) == (path,)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_large_file_answers_as_the_network_in_either_precision(
    precision: str, tmp_path: Path
) -> None:
    subject = subject_of("gpt2")
    subnet = subject.model.sizes.with_precision(precision)
    path = export_onnx(subject.model, subnet, tmp_path / "model.onnx")
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.onnx_data"}
    expected = predict(subject.model, subject.judged, subnet)
    check_parity(path, subject.judged, expected, subject.model.shape, precision=precision)


@pytest.mark.usefixtures("small_limit")
def test_formats_of_a_large_network_are_made_and_read_alike(tmp_path: Path) -> None:
    subject = subject_of("vit")
    found = export("onnx-fp16", subject, tmp_path)
    assert list(found.files) == ["onnx/model_fp16.onnx", "onnx/model_fp16.onnx_data"]
    assert export("openvino", subject, tmp_path).parity.max_error < 1e-4
