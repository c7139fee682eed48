"""Whether training in fewer bits pays on this processor: measured, since flags do not tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F

from search.errors import InvalidInput
from search.model.mixing import rotary_angles
from search.model.transformer import Layer, Pass, attention_bias
from search.shape import ModelShape
from search.space import SubnetConfig

MUST_GAIN = 0.85
"""A shorter format rounds; it has to be this much of fp32's time or less to be worth it."""
CPU = torch.device("cpu")
PROBE_TOKENS = 64
PROBE_ROWS = {"cpu": 4, "cuda": 32}
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_GPU_ONLY = {"fp16": "multiplies in it", "tf32": "has it"}


def choose_precision(wanted: str, shape: ModelShape, device: torch.device = CPU) -> str:
    """`fp32`, `tf32`, `bf16` or `fp16`; `auto` takes what runs a layer of the model fastest.

    A processor without bf16 instructions emulates them: 25 times slower on AVX2. Every GPU on
    which bf16 is fast has it as wide as fp16, and it needs no scaling of the loss. A small model
    on a fast GPU waits for kernels to be started, and 16 bits, which have to be cast to, start
    more of them: there tf32 is faster, or nothing.

    Raises:
        InvalidInput: fp16 or tf32 without a GPU.
    """
    if wanted in _GPU_ONLY and device.type == "cpu":
        lacking = f"{wanted} needs a GPU, no CPU {_GPU_ONLY[wanted]}; choose bf16, fp32 or auto"
        raise InvalidInput("training.precision", lacking)
    if wanted != "auto":
        return wanted
    candidates = ("fp32", "bf16") if device.type == "cpu" else ("fp32", "tf32", "bf16")
    seconds_in = _timed_layer(shape, device)
    times = {precision: min(seconds_in(precision) for _ in range(3)) for precision in candidates}
    fastest = min(times, key=times.__getitem__)
    return fastest if times[fastest] < MUST_GAIN * times["fp32"] else "fp32"


def autocast(precision: str, device: torch.device = CPU) -> torch.autocast:
    dtype = _DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Meanwhile products of fp32 matrices, in backward passes too, may be rounded to tf32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _timed_layer(shape: ModelShape, device: torch.device) -> Callable[[str], float]:
    """Seconds forwards and backwards through one layer of the model in a precision, its casts and
    small kernels too. The first time in each takes longer."""
    one = replace(shape, num_layers=1)
    num_tokens = min(PROBE_TOKENS, shape.max_seq_len)
    layer = Layer(one, one.embed_dim, one.num_heads, one.ffn_dim).to(device)
    mask = torch.ones(PROBE_ROWS[device.type], num_tokens, dtype=torch.int64, device=device)
    bias = attention_bias(mask, num_tokens, is_causal=one.is_causal)
    is_rotary = one.positions == "rotary"
    rotary = rotary_angles(one, 0, num_tokens, device) if is_rotary else None
    shared = Pass(SubnetConfig.full(one), bias, rotary, None, None)
    x_BTD = torch.randn(*mask.shape, one.embed_dim, device=device)

    def seconds_in(precision: str) -> float:
        start = time.perf_counter()
        with products_in(precision):
            with autocast(precision, device):
                output, _ = layer(x_BTD, 0, shared, F.linear, lambda x: x)
            torch.autograd.backward(output.float().mean())
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return seconds_in
