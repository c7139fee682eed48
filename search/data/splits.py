"""Which rows are for what; fixed by the rows and a seed, equal on every machine. No torch."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

# 5 % of 20 is one: every class has a row in the smallest split.
MIN_ROWS_PER_CLASS = 20
SEARCH_SHARE, VALIDATION_SHARE, TEST_SHARE = 0.10, 0.05, 0.15
SPLITS = ("train", "search", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Splits:
    """Row indices, ascending. `test` is read once, at the end, for the figures reported."""

    train: tuple[int, ...]
    search: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    @classmethod
    def of(
        cls,
        *,
        train: Collection[int],
        search: Collection[int],
        validation: Collection[int],
        test: Collection[int],
    ) -> Splits:
        """From rows in any order."""
        return cls(
            train=tuple(sorted(train)),
            search=tuple(sorted(search)),
            validation=tuple(sorted(validation)),
            test=tuple(sorted(test)),
        )


def split_by_class(labels: Sequence[int], num_classes: int, seed: int) -> Splits:
    """Each class keeps its share, and has a row in every split."""
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    for label in range(num_classes):
        rows = [i for i, value in enumerate(labels) if value == label]
        random.Random(f"split:{seed}:{label}").shuffle(rows)
        _deal(rows, parts, least=1)
    return Splits.of(**parts)


def split_by_tags(tags: Sequence[Collection[int]], seed: int) -> Splits:
    """Rows of several labels each: every label is in the training split.

    A row counts as one of its rarest label, of which each split has its share.
    """
    counts: dict[int, int] = {}
    for row in tags:
        for tag in set(row):
            counts[tag] = counts.get(tag, 0) + 1
    by_rarest: dict[int, list[int]] = {}
    for place, row in enumerate(tags):
        rarest = min(set(row), key=lambda tag: (counts[tag], tag))
        by_rarest.setdefault(rarest, []).append(place)
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    for tag in sorted(by_rarest):
        rows = by_rarest[tag]
        random.Random(f"split:{seed}:{tag}").shuffle(rows)
        _deal(rows, parts, least=0)
    _teach_every_tag(tags, counts, parts)
    return Splits.of(**parts)


def split_by_size(sizes: Sequence[int], seed: int) -> Splits:
    """Documents of unequal sizes: each split has its share of the whole, and a document."""
    order = list(range(len(sizes)))
    random.Random(f"split:{seed}").shuffle(order)
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    for name, share in _shares():
        wanted, taken = share * sum(sizes), 0
        while not parts[name] or taken + sizes[order[-1]] / 2 <= wanted:
            parts[name].append(order.pop())
            taken += sizes[parts[name][-1]]
    parts["train"] = order
    return Splits.of(**parts)


def _deal(rows: list[int], parts: dict[str, list[int]], *, least: int) -> None:
    count = len(rows)
    for name, share in _shares():
        size = max(least, round(share * count))
        parts[name] += rows[:size]
        rows = rows[size:]
    parts["train"] += rows


def _shares() -> tuple[tuple[str, float], ...]:
    return ("test", TEST_SHARE), ("validation", VALIDATION_SHARE), ("search", SEARCH_SHARE)


def _teach_every_tag(
    tags: Sequence[Collection[int]], counts: Collection[int], parts: dict[str, list[int]]
) -> None:
    """Moves a row into the training split for each label that it lacks by chance."""
    taught = {tag for place in parts["train"] for tag in tags[place]}
    for tag in sorted(set(counts) - taught):
        for name, _ in _shares():
            moved = next((place for place in parts[name] if tag in tags[place]), None)
            if moved is not None and tag not in taught:
                parts[name].remove(moved)
                parts["train"].append(moved)
                taught |= set(tags[moved])
