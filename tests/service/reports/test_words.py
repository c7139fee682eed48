from __future__ import annotations

import pytest

from service.reports.words import in_words, targets_phrase


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("targets[1].budget_ms: 0.1 ms cannot be reached", "target 1: 0.1 ms cannot be reached"),
        ("targets[0].budget_ratio: too small", "target 0: too small"),
        ("targets[12] and targets[3]", "target 12 and target 3"),
        ("the worker died", "the worker died"),
    ],
)
def test_fields_of_a_target_are_told_as_the_target(message: str, told: str) -> None:
    assert in_words(message) == told


@pytest.mark.parametrize(
    ("indices", "told"),
    [([0], "target 0"), ([0, 1], "targets 0 and 1"), ([0, 2, 5], "targets 0, 2 and 5")],
)
def test_a_network_is_named_by_all_its_targets(indices: list[int], told: str) -> None:
    assert targets_phrase(indices) == told
