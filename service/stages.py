"""The stages of a search job, in the order in which it goes through them."""

from __future__ import annotations

STAGES = ("prepare", "onboard", "teacher", "supernet", "search", "finish", "report")
TRAINED_STAGES = ("teacher", "supernet")
"""Those that a search of an earlier supernet leaves out."""
