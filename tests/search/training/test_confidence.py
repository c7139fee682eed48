from __future__ import annotations

import numpy as np
import pytest

from search.training.confidence import Interval, bootstrap, interval, simultaneous, wilson


def test_wilson_gives_the_published_interval() -> None:
    # 81 of 263: a worked example of Newcombe (Statistics in Medicine 17, 1998, table I).
    found = wilson(81, 263, 0.95)
    assert found.lower == pytest.approx(0.2553, abs=5e-5)
    assert found.upper == pytest.approx(0.3662, abs=5e-5)


@pytest.mark.parametrize(("num_right", "num_rows"), [(0, 20), (20, 20), (1, 3)])
def test_wilson_stays_between_0_and_1_and_holds_the_share(num_right: int, num_rows: int) -> None:
    found = wilson(num_right, num_rows, 0.999)
    assert 0 <= found.lower <= num_right / num_rows <= found.upper <= 1
    assert found.upper - found.lower > 0.1


def test_a_share_lies_in_its_interval_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.binomial(300, 0.85, size=2000)
    held = [(found := wilson(int(n), 300, 0.9)).lower <= 0.85 <= found.upper for n in drawn]
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)


def test_a_mean_over_rows_of_several_answers_lies_in_its_interval() -> None:
    """Answers of a row are alike: to count them as independent would promise far too much."""
    rng = np.random.default_rng(1)
    held, widths, naive = [], [], []
    for _ in range(150):
        counts = rng.integers(5, 40, 80).astype(np.float64)
        scores = counts * rng.normal(-2.0, 0.5, 80)
        found = bootstrap(scores, counts, 0.9)
        held.append(found.lower <= -2.0 <= found.upper)
        widths.append(found.upper - found.lower)
        naive.append(2 * 1.645 * 0.5 / np.sqrt(counts.sum()))
    assert np.mean(held) == pytest.approx(0.9, abs=0.07)
    assert np.mean(widths) > 3 * np.mean(naive)


def test_several_networks_need_wider_intervals() -> None:
    assert simultaneous(0.95, 1) == pytest.approx(0.95)
    assert simultaneous(0.95, 150) == pytest.approx(1 - 0.05 / 150)
    right = (np.arange(400) % 5 > 0).astype(np.float64)
    one = interval(right, np.ones(400))
    many = interval(right, np.ones(400), num_compared=150)
    assert one == wilson(320, 400, 0.95)
    assert many.lower < one.lower < 0.8 < one.upper < many.upper


def test_the_best_of_many_equal_networks_keeps_its_promise_only_when_all_are_counted() -> None:
    rng = np.random.default_rng(2)
    best = rng.binomial(300, 0.85, size=(1000, 30)).max(1)

    def is_held(found: Interval) -> bool:
        return found.lower <= 0.85

    alone = np.mean([is_held(wilson(int(n), 300, 0.95)) for n in best])
    counted = np.mean([is_held(wilson(int(n), 300, simultaneous(0.95, 30))) for n in best])
    assert alone < 0.8
    assert counted > 0.95


def test_the_same_rows_give_the_same_interval() -> None:
    scores = np.random.default_rng(3).normal(size=60)
    assert interval(scores, np.full(60, 2.0)) == interval(scores, np.full(60, 2.0))


def test_no_networks_and_impossible_confidences_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        simultaneous(0.95, 0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson(1, 2, 1.0)


def test_the_interval_of_no_and_of_only_right_answers_holds_the_share_itself() -> None:
    for num_rows in range(1, 400):
        assert wilson(0, num_rows, 0.95).lower == 0.0
        assert wilson(num_rows, num_rows, 0.99).upper == 1.0
