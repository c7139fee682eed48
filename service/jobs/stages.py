"""The stages of a search job, in the order in which it goes through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STAGES = ("prepare", "onboard", "teacher", "supernet", "search", "finish", "report")
TRAINED_STAGES = ("teacher", "supernet")
"""Those that a search of an earlier supernet leaves out."""


def stages_of(spec: Mapping[str, Any]) -> Sequence[str]:
    """Those that a job of this description goes through."""
    if spec.get("supernet_of") is None:
        return STAGES
    return [stage for stage in STAGES if stage not in TRAINED_STAGES]
