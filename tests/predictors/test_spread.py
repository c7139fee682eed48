"""Intervals across sessions, told by how their anchors disagree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from predictors.rows import LatencyRow
from predictors.spread import PRIOR_SPREAD, log_half_width, session_spread
from search.space import SubnetConfig
from tests.predictors.shapes import MINILM

FIRST = LatencyRow(
    subnet=SubnetConfig.full(MINILM, "fp32"),
    batch_size=1,
    seq_len=64,
    median_ms=15.0,
    p95_ms=16.0,
    anchors_ms=(15.0, 6.0, 1.5),
)


def later(*factors: float) -> LatencyRow:
    anchors_ms = tuple(ms * f for ms, f in zip(FIRST.anchors_ms, factors, strict=True))
    return replace(FIRST, anchors_ms=anchors_ms)


def test_one_session_leaves_the_prior() -> None:
    assert session_spread([FIRST, FIRST]) == pytest.approx(PRIOR_SPREAD)


def test_anchors_that_moved_together_tell_of_no_spread() -> None:
    assert session_spread([FIRST, later(1.3, 1.3, 1.3)]) < PRIOR_SPREAD


def test_anchors_that_disagree_widen() -> None:
    assert session_spread([FIRST, later(1.0, 1.0, 1.2)]) > 3 * PRIOR_SPREAD


def test_many_sessions_outvote_the_prior() -> None:
    rng = np.random.default_rng(0)
    rows = [later(*np.exp(0.05 * rng.standard_normal(3))) for _ in range(60)]
    assert session_spread([FIRST, *rows]) == pytest.approx(0.05, rel=0.2)


def test_sessions_at_other_sizes_of_input_are_not_compared() -> None:
    other = replace(later(2.0, 3.0, 4.0), seq_len=128)
    assert session_spread([FIRST, other]) == pytest.approx(PRIOR_SPREAD)


def test_width_is_never_below_either_error() -> None:
    mean_ms = np.array([10.0, 10.0])
    widths = log_half_width(mean_ms, np.array([10.0, 12.0]), spread=0.02, num_anchors=3)
    assert widths[0] == pytest.approx(1.645 * 0.02 * (4 / 3) ** 0.5)
    assert widths[1] > np.log(1.2)
