"""Whether a device is still as fast as when its predictor was fitted.

Anchors that are all slower by the same share have drifted in scale: an offset corrects that.
Anchors that disagree have drifted in shape (another kernel, a missing core): only new
measurements correct that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

MIN_SCALE = 0.02  # within it a device counts as unchanged
MAX_DISAGREEMENT = 0.05  # of an anchor from what all have in common

DriftKind = Literal["none", "scale", "shape"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """`scale` is how many times as long the device takes now, `disagreement` the largest distance
    of an anchor from that, as a share."""

    kind: DriftKind
    scale: float
    disagreement: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge_drift(before_ms: Sequence[float], now_ms: Sequence[float]) -> Drift:
    """Compares the same anchors, in the same order, of two sessions.

    Raises:
        ValueError: the sessions share no anchor.
    """
    shared = min(len(before_ms), len(now_ms))
    if shared == 0:
        raise ValueError("two sessions can only be compared by the anchors that they share")
    logs = np.log(np.array(now_ms[:shared]) / np.array(before_ms[:shared]))
    scale = float(np.median(logs))
    disagreement = float(np.abs(logs - scale).max())
    kind: DriftKind = "none"
    if disagreement > MAX_DISAGREEMENT:
        kind = "shape"
    elif abs(scale) > MIN_SCALE:
        kind = "scale"
    return Drift(kind=kind, scale=float(np.exp(scale)), disagreement=disagreement)
