"""Whether training in bfloat16 pays on this processor: measured, since flags do not tell."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F

MUST_GAIN = 0.85
"""bf16 rounds; it has to be this much of fp32's time or less to be worth it."""


def choose_precision(wanted: str) -> str:
    """`fp32` or `bf16`; `auto` takes the one that is faster here.

    A processor without bf16 instructions emulates them: 25 times slower on AVX2.
    """
    if wanted != "auto":
        return wanted
    times = {p: min(_forward_backward_seconds(p) for _ in range(3)) for p in ("fp32", "bf16")}
    return "bf16" if times["bf16"] < MUST_GAIN * times["fp32"] else "fp32"


def autocast(precision: str) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")


def _forward_backward_seconds(precision: str) -> float:
    x = torch.randn(256, 256)
    weight = torch.randn(512, 256, requires_grad=True)
    start = time.perf_counter()
    with autocast(precision):
        torch.autograd.backward(F.linear(x, weight).sum())
    return time.perf_counter() - start
