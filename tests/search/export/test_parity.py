from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from search.export.package import export_onnx
from search.export.parity import ParityError, check_parity
from search.model.extract import extract
from search.training.evaluate import predict
from tests.search.small import MIXED, SHAPE, network, task


def test_a_file_that_answers_as_its_network_passes(tmp_path: Path) -> None:
    model, rows = extract(network(weight_bits=7), MIXED), task(40)
    for precision in ("fp32", "int8"):
        path = export_onnx(
            model, model.sizes.with_precision(precision), tmp_path / f"{precision}.onnx"
        )
        expected = predict(model, rows, model.sizes.with_precision(precision))
        parity = check_parity(path, rows, expected, SHAPE, precision=precision)
        assert parity.num_rows == 40
        assert parity.agreement >= 0.95
    sizes = {p.stem: p.stat().st_size for p in tmp_path.glob("*.onnx")}
    assert set(sizes) == {"fp32", "int8"}, "no intermediate file is left behind"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_file_that_answers_otherwise_is_refused(tmp_path: Path, precision: str) -> None:
    model, rows = network(weight_bits=7), task(40)
    path = export_onnx(model, model.sizes.with_precision(precision), tmp_path / "other.onnx")
    swapped = predict(model, rows).flip(1)
    with pytest.raises(ParityError, match=r"other\.onnx"):
        check_parity(path, rows, swapped, SHAPE, precision=precision)


@pytest.mark.parametrize(
    ("precision", "error", "passes"),
    [
        ("fp32", 5e-4, True),
        ("fp32", 5e-3, False),
        ("fp16", 5e-3, True),
        ("fp16", 1.0, False),
        ("int8", 5e-3, True),
        ("fp32", float("nan"), False),
        ("fp16", float("nan"), False),
    ],
)
def test_how_far_logits_may_be_off_depends_on_the_precision(
    precision: str, error: float, passes: bool, tmp_path: Path
) -> None:
    model, rows = network(), task(40)
    path = export_onnx(model, model.sizes, tmp_path / "model.onnx")
    expected = predict(model, rows)
    largest = expected.abs().argmax()
    # The largest answer grows: no label changes.
    shifted = expected.flatten().clone()
    shifted[largest] += error * shifted[largest].sign()
    with nullcontext() if passes else pytest.raises(ParityError):
        check_parity(path, rows, shifted.view_as(expected), SHAPE, precision=precision)
