"""int8 files: smaller, close to fp32, and safe on the CPU at hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from search.export.graph import build_onnx
from search.export.quantize import cpu_flags, needs_reduced_range, quantize_int8
from search.shape import ModelShape
from search.space import SubnetConfig

SHAPE = ModelShape(
    family="bert",
    num_layers=2,
    embed_dim=64,
    num_heads=4,
    head_dim=16,
    ffn_dim=128,
    vocab_size=2000,
    max_seq_len=32,
    num_token_types=2,
    num_labels=2,
)


@pytest.fixture
def fp32_path(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(build_onnx(SHAPE, SubnetConfig.full(SHAPE), None), path)
    return path


def logits(path: Path) -> np.ndarray:
    ids = np.random.default_rng(0).integers(0, SHAPE.vocab_size, (4, 16))
    mask = (np.arange(16) < np.array([16, 12, 5, 1])[:, None]).astype(np.int64)
    session = onnxruntime.InferenceSession(path)
    return np.asarray(session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0])


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("reduce_range", [None, True])
def test_int8_stays_close_to_fp32_and_takes_a_quarter_of_the_file(
    fp32_path: Path, tmp_path: Path, reduce_range: bool | None
) -> None:
    out = tmp_path / "model_int8.onnx"
    quantize_int8(fp32_path, out, reduce_range=reduce_range)
    exact, close = logits(fp32_path), logits(out)
    np.testing.assert_allclose(close, exact, atol=0.05 * np.abs(exact).max())
    assert out.stat().st_size < 0.3 * fp32_path.stat().st_size


def test_every_linear_and_table_is_quantized_and_the_head_is_not(
    fp32_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model_int8.onnx"
    quantize_int8(fp32_path, out)
    assert operators(out)["MatMulInteger"] == 6 * SHAPE.num_layers
    assert operators(out)["DequantizeLinear"] == 2
    assert operators(out)["MatMul"] == 2 * SHAPE.num_layers + 2  # attention, pooling and head


def test_a_network_for_timing_has_the_same_graph_and_sizes(
    fp32_path: Path, tmp_path: Path
) -> None:
    real, timed = tmp_path / "real.onnx", tmp_path / "timed.onnx"
    quantize_int8(fp32_path, real)
    quantize_int8(fp32_path, timed, for_timing=True)
    assert operators(real) == operators(timed)
    sizes = [
        {tensor.name: tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer}
        for path in (real, timed)
    ]
    assert sizes[0] == sizes[1]
    np.testing.assert_allclose(logits(timed), logits(fp32_path), atol=0.1)


def test_no_inferred_shapes_are_left_in_the_file(fp32_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "model_int8.onnx"
    quantize_int8(fp32_path, out)
    assert not onnx.load(out).graph.value_info


@pytest.mark.parametrize(
    ("flags", "machine", "reduced"),
    [
        ({"avx2"}, "x86_64", True),
        ({"avx2", "avx512_vnni"}, "x86_64", False),
        ({"avx2", "avx_vnni"}, "AMD64", False),
        (set(), "x86_64", True),
        ({"asimd"}, "aarch64", False),
    ],
)
def test_weights_keep_to_seven_bits_only_where_products_saturate(
    flags: set[str], machine: str, reduced: bool
) -> None:
    assert needs_reduced_range(flags, machine) is reduced


def test_reading_the_cpu_flags_never_fails() -> None:
    assert all(isinstance(flag, str) for flag in cpu_flags())
