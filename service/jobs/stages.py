"""The stages of a search job, in the order in which it goes through them."""

from __future__ import annotations

from collections.abc import Sequence

STAGES = ("prepare", "onboard", "teacher", "supernet", "search", "finish", "report")
TRAINED_STAGES = ("teacher", "supernet")
"""Those that a search of an earlier supernet leaves out."""


def stages_of(supernet_of: str | None) -> Sequence[str]:
    """Those that a job goes through; one of an earlier job's supernet trains none."""
    if supernet_of is None:
        return STAGES
    return [stage for stage in STAGES if stage not in TRAINED_STAGES]
