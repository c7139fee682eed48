"""What is asked of compression, and whether it was found. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Want:
    """A figure and its bound: at least, or at most where `is_ceiling`."""

    what: str
    bound: float
    is_ceiling: bool = False

    def outcome(self, found: float | None, **details: Any) -> dict[str, Any]:
        """Plain data; nothing found is not met."""
        is_met = found is not None and (
            found <= self.bound if self.is_ceiling else found >= self.bound
        )
        return {
            "what": self.what,
            "wanted": f"{'at most' if self.is_ceiling else 'at least'} {self.bound:g}",
            "found": found,
            "is_met": is_met,
            **details,
        }


SMALLER_SHARE = 0.4  # of the original's bytes: 60 % smaller
SPEEDS: Mapping[int, float] = {4: 0.99, 8: 0.97, 12: 0.94}  # quality kept by how much faster
SMALLEST_KEPT = 0.97

FP32_SIZE = Want("60 % smaller in fp32, quality kept", 0.985)
ANY_SIZE = Want("60 % smaller in any format, quality kept", 0.985)
INT8_LOSS = Want("int8 against its own fp32, points lost", 0.5, is_ceiling=True)
INT8_COSINE = Want("int8 against its own fp32, cosine of pooled last states", 0.996)
EXPORT = Want("our fp32 latency against the best of PyTorch's exporters", 1.0, is_ceiling=True)
SPARSE = Want("90 % zeros, second order against magnitude, points", 1.0)
SMALLEST = Want("smallest file that keeps 97 %, MB", 10.0, is_ceiling=True)
RECOVERY = Want("share of the pruning gap won back in a tenth of the training", 0.6)


def faster(times: int) -> Want:
    return Want(f"{times} times faster, quality kept", SPEEDS[times])
