"""JSON that every part of the service can keep: what the grammar allows beyond that is refused.

PostgreSQL has no NUL in its texts, UTF-8 no half of a surrogate pair, JSON no NaN (which Python
reads), and no column or float an integer of a thousand digits.
"""

from __future__ import annotations

import math
from typing import Any

MAX_DEPTH = 64
MAX_INTEGER = 2**63 - 1


def fault_in(value: Any, depth: int = 0) -> tuple[tuple[str | int, ...], str] | None:
    """The first place that is not plain, as keys and indices that lead there, and what is wrong;
    None where all is well. Whatever JSON does not have is left alone."""
    if depth > MAX_DEPTH:
        return (), f"is nested deeper than {MAX_DEPTH} levels"
    if isinstance(value, dict):
        for key, inner in value.items():
            if reason := _fault_of_leaf(key):
                return (), f"has a key that {reason}"
            if found := fault_in(inner, depth + 1):
                return (str(key), *found[0]), found[1]
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if found := fault_in(inner, depth + 1):
                return (index, *found[0]), found[1]
    elif reason := _fault_of_leaf(value):
        return (), reason
    return None


def _fault_of_leaf(value: Any) -> str | None:
    if isinstance(value, str):
        if "\0" in value:
            return "holds a NUL character"
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            return "holds half of a surrogate pair"
    elif isinstance(value, float):
        return None if math.isfinite(value) else "should be a finite number"
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        return "should be an integer of at most 64 bits"
    return None
