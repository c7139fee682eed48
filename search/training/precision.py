"""Whether training in fewer bits pays on this processor: measured, since flags do not tell."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F

from search.errors import InvalidInput

MUST_GAIN = 0.85
"""A 16-bit format rounds; it has to be this much of fp32's time or less to be worth it."""
CPU = torch.device("cpu")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(wanted: str, device: torch.device = CPU) -> str:
    """`fp32`, `bf16` or `fp16`; `auto` takes bf16 where it is faster.

    A processor without bf16 instructions emulates them: 25 times slower on AVX2. Every GPU on
    which bf16 is fast has it as wide as fp16, and it needs no scaling of the loss.

    Raises:
        InvalidInput: fp16 without a GPU, where nothing multiplies in it.
    """
    if wanted == "fp16" and device.type == "cpu":
        raise InvalidInput("training.precision", "fp16 needs a GPU; choose bf16, fp32 or auto")
    if wanted != "auto":
        return wanted
    times = {
        precision: min(_forward_backward_seconds(precision, device) for _ in range(3))
        for precision in ("fp32", "bf16")
    }
    return "bf16" if times["bf16"] < MUST_GAIN * times["fp32"] else "fp32"


def autocast(precision: str, device: torch.device = CPU) -> torch.autocast:
    dtype = _DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def _forward_backward_seconds(precision: str, device: torch.device) -> float:
    x = torch.randn(256, 256, device=device)
    weight = torch.randn(512, 256, device=device, requires_grad=True)
    start = time.perf_counter()
    with autocast(precision, device):
        loss = F.linear(x, weight).sum()
    torch.autograd.backward(loss)
    float(loss.detach())  # waits for a GPU
    return time.perf_counter() - start
