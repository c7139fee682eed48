"""The table of recipes: what each may train, and what fits together."""

from __future__ import annotations

import pytest

from benchmarks.techniques import (
    AWARE,
    DISTIL,
    INT8,
    WIDTHS,
    techniques,
    trained_epochs,
    within_budget,
)
from search.compress.configs import DistillConfig
from search.compress.recipe import CompressionRecipe
from search.errors import InvalidInput
from tests.search.small import SHAPE


def test_every_recipe_that_trains_does_so_equally_long() -> None:
    totals = set()
    for technique in techniques(SHAPE):
        stages = within_budget(technique.stages, epochs=0.6, learning_rate=1e-3)
        assert [s.kind for s in stages] == [s.kind for s in technique.stages]
        total = sum(map(trained_epochs, stages))
        totals.add(round(total, 9))
    assert totals == {0.0, 0.6}


def test_training_is_divided_by_the_shares_that_the_stages_have() -> None:
    stages = (WIDTHS, DistillConfig(epochs=3.0), AWARE)
    pruned, taught, rounded = within_budget(stages, epochs=2.0, learning_rate=1e-3)
    assert pruned == WIDTHS
    assert [trained_epochs(taught), trained_epochs(rounded)] == pytest.approx([1.5, 0.5])
    assert taught.to_dict()["learning_rate"] == rounded.to_dict()["learning_rate"] == 1e-3


def test_what_trains_nothing_stays_as_it_is() -> None:
    assert within_budget((WIDTHS, INT8), epochs=1.0, learning_rate=1e-3) == (WIDTHS, INT8)


def test_names_tell_recipes_apart_and_only_one_order_is_impossible() -> None:
    names = [technique.name for technique in techniques(SHAPE)]
    assert len(set(names)) == len(names)
    refused = []
    for technique in techniques(SHAPE):
        try:
            CompressionRecipe(stages=technique.stages)
        except InvalidInput:
            refused.append(technique.name)
    assert refused == ["quantize, prune"]


def test_the_orders_differ_in_nothing_but_the_order() -> None:
    """Those of pruning at once, distilling in floating point and plain rounding."""
    by_name = {technique.name: technique.stages for technique in techniques(SHAPE)}
    first = by_name["distil, prune, quantize"]
    second = by_name["prune, distil, quantize"]
    assert set(first) == set(second)
    assert first != second
    assert DISTIL in first
