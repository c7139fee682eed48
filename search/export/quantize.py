"""int8 by ONNX Runtime's dynamic quantization, for the instruction set that will run it."""

from __future__ import annotations

import logging
import platform
import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from search.export.external import external_file, save_onnx
from search.shape import ModelShape
from search.space import SubnetConfig

# With one of these, products of int8 are summed in 32 bits. Without (AVX2 alone), pairs are
# summed in 16 bits first and saturate, unless weights keep to 7 bits.
INT8_DOT_PRODUCT_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})

# Gather is an embedding table: no faster in int8, but most of the file.
QUANTIZED_OPERATORS = ("MatMul", "Gather")

HEAD_NODE = "head.product"
SPREAD_NODE = "embeddings.spread.product"


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of this machine's CPU; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def needs_reduced_range(flags: Set[str], machine: str) -> bool:
    """Whether int8 products would saturate on a CPU with these flags (x86 without VNNI)."""
    if machine.lower() not in ("x86_64", "amd64", "i686"):
        return False
    return not flags & INT8_DOT_PRODUCT_FLAGS


def float_nodes(shape: ModelShape, subnet: SubnetConfig) -> tuple[str, ...]:
    """Of a subnet's graph: what stays in fp32 though its precision is int8.

    A head of a few labels costs nothing, and its errors would be the answer's; that of a
    vocabulary is most of a small network. What spreads a narrow word table costs next to nothing.
    """
    ffn = [f"ffn.{part}{low}" for part in ("gate", "up", "down") for low in ("", "_low")]
    parts = [*(f"attn.{part}" for part in ("q", "k", "v", "out")), *ffn]
    layers = [
        f"layers.{layer}.{part}.product"
        for layer in subnet.renumbered().float_layers
        for part in parts
    ]
    layers += [SPREAD_NODE] if shape.word_rank else []
    return (*layers, *(() if shape.task == "language-modelling" else (HEAD_NODE,)))


def quantize_int8(
    model_path: Path,
    out_path: Path,
    *,
    float_nodes: Sequence[str] = (HEAD_NODE,),
    reduce_range: bool | None = None,
    for_timing: bool = False,
) -> None:
    """Writes `model_path` with int8 weights, one scale a channel; activations are scaled per run.

    Args:
        float_nodes: names of nodes that stay as they are; see `float_nodes`.
        reduce_range: 7-bit weights; None looks at this machine's CPU.
        for_timing: one scale a tensor, repeated for its channels: the same graph and the same
            speed in a fifth of the time, for networks whose outputs nobody reads.
    """
    if reduce_range is None:
        reduce_range = needs_reduced_range(cpu_flags(), platform.machine())
    # Importing it takes a while, and only those who quantize need it.
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(dir=out_path.parent) as scratch, _quiet_root_logger():
        raw_path = Path(scratch) / "quantized.onnx"
        quantize_dynamic(
            model_path,
            raw_path,
            op_types_to_quantize=list(QUANTIZED_OPERATORS),
            nodes_to_exclude=list(float_nodes),
            per_channel=not for_timing,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            use_external_data_format=external_file(model_path).exists(),
        )
        model = onnx.load(raw_path)
    # The quantizer leaves inferred shapes behind, which let ONNX Runtime fuse each residual with
    # its LayerNormalization into a kernel that is slower than the two: a network of 12.0 ms takes
    # 10.6 ms without them (MiniLM, 64 tokens, one thread, ONNX Runtime 1.32).
    del model.graph.value_info[:]
    if for_timing:
        _repeat_scales_per_channel(model.graph)
    save_onnx(model, out_path)


def _repeat_scales_per_channel(graph: onnx.GraphProto) -> None:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "MatMulInteger":
            continue
        weight, zero_point = tensors[node.input[1]], tensors[node.input[3]]
        scale = tensors[node.input[1].removesuffix("_quantized") + "_scale"]
        for tensor in (zero_point, scale):
            value = numpy_helper.to_array(tensor)
            repeated = np.full(weight.dims[-1], value, dtype=value.dtype)
            tensor.CopyFrom(numpy_helper.from_array(repeated, tensor.name))


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """The quantizer advises, through the root logger, to optimize the graph first.

    That would call for the optimizer that guesses head counts; see `search/export/graph.py`.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
