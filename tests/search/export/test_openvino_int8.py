from __future__ import annotations

from pathlib import Path
from typing import Any

import nncf
import openvino
import pytest
import torch
import torch.nn.functional as F

from search.errors import InvalidInput
from search.export import openvino_int8
from search.export.errors import ExportFailed
from search.export.openvino_int8 import Int8Outcome, Judgement, quantize_openvino
from search.export.writers import Subject, export
from tests.search.export.networks import ALL
from tests.search.export.subjects import FAMILIES, data_of, no_rows, subject_of

NO_MATTER_WHAT = -1.0
NEVER = 1.01


def float_ir(subject: Subject, folder: Path) -> Path:
    export("openvino", subject, folder)
    return folder / "openvino/openvino_model.xml"


def quantized(
    subject: Subject, folder: Path, min_agreement: float = NO_MATTER_WHAT, **options: Any
) -> tuple[Int8Outcome, Path]:
    path = folder / "int8.xml"
    outcome = quantize_openvino(
        float_ir(subject, folder),
        path,
        shape=subject.model.shape,
        num_layers=subject.model.sizes.num_layers,
        judged=Judgement(
            rows=subject.judged, expected=subject.expected, min_agreement=min_agreement
        ),
        **{"calibration": subject.calibration, **options},
    )
    return outcome, path


def rounded_inputs(path: Path) -> set[str]:
    """Matrix products that read rounded activations."""
    return {
        op.get_friendly_name()
        for op in openvino.Core().read_model(path).get_ops()
        if op.get_type_name() == "MatMul"
        and "FakeQuantize"
        in {i.get_source_output().get_node().get_type_name() for i in op.inputs()}
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_products_of_every_layer_are_int8_and_weights_take_a_byte(
    name: str, tmp_path: Path
) -> None:
    subject = subject_of(name)
    outcome, path = quantized(subject, tmp_path)
    assert outcome.float_layers == ()
    assert not outcome.is_float
    products = rounded_inputs(path)
    for layer in range(subject.model.sizes.num_layers):
        assert f"layers.{layer}.ffn.up.product" in products
    assert ("head.product" in products) == (name == "gpt2")
    before, after = (
        p.with_suffix(".bin").stat().st_size for p in (float_ir(subject, tmp_path), path)
    )
    # So small a network is half biases, norms and scales.
    assert after < 0.6 * before


def test_layers_that_are_kept_have_no_rounding_at_all(tmp_path: Path) -> None:
    subject = subject_of("bert")
    model = openvino_int8._quantized(
        float_ir(subject, tmp_path), subject.model.shape, subject.calibration, (1,)
    )
    openvino.save_model(model, tmp_path / "kept.xml", compress_to_fp16=False)
    products = rounded_inputs(tmp_path / "kept.xml")
    assert not [name for name in products if name.startswith("layers.1.")]
    assert {"layers.0.attn.q.product", "layers.2.ffn.down.product"} < products


def test_the_ladder_tries_none_then_one_then_half_and_then_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[int, ...]] = []
    real = openvino_int8._quantized

    def recorded(*args: Any) -> Any:
        tried.append(tuple(args[-1]))
        return real(*args)

    monkeypatch.setattr(openvino_int8, "_quantized", recorded)
    monkeypatch.setattr(openvino_int8, "rungs", lambda _: (0, 1, 2))
    monkeypatch.setattr(openvino_int8, "_by_harm", lambda *_: (2, 0, 1))
    outcome, path = quantized(subject_of("bert"), tmp_path, NEVER)
    assert tried == [(), (2,), (0, 2)]
    assert outcome.is_float
    assert outcome.parity.num_rows == 48
    assert not path.exists()
    assert not path.with_suffix(".bin").exists()


def test_no_rung_is_begun_that_would_end_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_int8, "_by_harm", lambda *_: pytest.fail("a second rung"))
    outcome, _ = quantized(subject_of("bert"), tmp_path, NEVER, seconds=0.0)
    assert outcome.is_float


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_layer_that_int8_harms_most_comes_first(name: str, tmp_path: Path) -> None:
    """Only layer 1 is rounded, so only it can harm."""
    subject = subject_of(name)
    shape, exact = subject.model.shape, float_ir(subject, tmp_path)
    model = openvino_int8._quantized(exact, shape, subject.calibration, (0, 2))
    openvino.save_model(model, tmp_path / "one.xml", compress_to_fp16=False)
    order = openvino_int8._by_harm(exact, tmp_path / "one.xml", shape, 3, subject.judged)
    assert order[0] == 1
    assert sorted(order) == [0, 1, 2]


@pytest.mark.parametrize(
    ("of", "count", "reason"),
    [
        ("bert", 0, "there are no rows"),
        ("vit", 8, "the model reads texts"),
        ("bert/pairs", 8, "reads single texts"),
        ("bert/tags", 8, "another task than text-classification"),
        ("bert/vectors", 8, "another task than text-classification"),
    ],
)
def test_rows_to_calibrate_with_are_refused_where_they_are_none_or_of_another_task(
    of: str, count: int, reason: str, tmp_path: Path
) -> None:
    rows = data_of(ALL[of], count) if count else no_rows()
    with pytest.raises(InvalidInput, match=reason) as refused:
        quantized(subject_of("bert"), tmp_path, calibration=rows)
    assert refused.value.field == "calibration"


def test_what_the_quantizer_refuses_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no pattern for this\nand a page of stack")

    monkeypatch.setattr(nncf, "quantize", refuse)
    with pytest.raises(ExportFailed, match="nncf: no pattern for this"):
        quantized(subject_of("bert"), tmp_path)


def test_quantizing_for_openvino_leaves_torch_as_it_is(tmp_path: Path) -> None:
    """NNCF can patch torch's operators, and a worker trains under them in the same process."""

    def operators() -> list[Any]:
        return [F.linear, F.softmax, F.layer_norm, torch.matmul, torch.jit.script, torch.compile]

    before = operators()
    quantized(subject_of("bert"), tmp_path)
    assert operators() == before


def test_a_file_on_its_way_to_int8_prints_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantized(subject_of("bert"), tmp_path)
    assert capsys.readouterr().out == ""
