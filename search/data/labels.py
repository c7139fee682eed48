"""Names of classes, in an order that does not depend on the rows, and whether there are enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from search.data.splits import MIN_ROWS_PER_CLASS
from search.errors import InvalidInput


def name_classes(names: Sequence[str]) -> tuple[str, ...]:
    """The classes of rows with these labels, ordered.

    Raises:
        InvalidInput: one class only, or a class with too few rows to have one in every split.
    """
    if not names:
        raise InvalidInput("data", "is empty: it has no row")
    counts = Counter(names)
    check_several(counts, "row")
    needed = MIN_ROWS_PER_CLASS * len(counts)
    if len(names) < needed:
        raise InvalidInput(
            "data",
            f"has {len(names)} rows; the splits need at least {needed} for {len(counts)} classes, "
            f"{MIN_ROWS_PER_CLASS} of each",
        )
    rarest, count = min(counts.items(), key=lambda item: (item[1], item[0]))
    if count < MIN_ROWS_PER_CLASS:
        raise InvalidInput(
            "data.label",
            f"class {rarest!r} has {count} rows; the splits need at least {MIN_ROWS_PER_CLASS}",
        )
    return in_order(counts)


def check_several(counts: Mapping[str, int], what: str) -> None:
    if len(counts) == 1:
        (name,) = counts
        raise InvalidInput(
            "data.label", f"every {what} has the label {name!r}; at least two classes are needed"
        )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=_label_order))


def class_summary(labels: Sequence[int], label_names: Sequence[str]) -> dict[str, Any]:
    counts = Counter(labels)
    return {
        "num_rows": len(labels),
        "num_labels": len(label_names),
        "rows_by_label": {name: counts[i] for i, name in enumerate(label_names)},
    }


def _label_order(name: str) -> tuple[int, int, str]:
    """Numbers by value before words by spelling, so that class 10 follows class 9."""
    digits = name.removeprefix("-")
    is_number = digits.isascii() and digits.isdigit() and len(digits) < 18
    return (0, int(name), name) if is_number else (1, 0, name)
