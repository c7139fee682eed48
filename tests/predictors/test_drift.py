"""Drift, by the anchors of two sessions."""

from __future__ import annotations

import pytest

from predictors.drift import judge_drift

BEFORE_MS = (15.0, 6.0, 1.5)


def test_a_device_as_fast_as_before_has_not_drifted() -> None:
    assert judge_drift(BEFORE_MS, (15.1, 5.95, 1.51)).kind == "none"


def test_anchors_that_agree_on_being_slower_have_drifted_in_scale() -> None:
    drift = judge_drift(BEFORE_MS, (18.0, 7.2, 1.8))
    assert drift.kind == "scale"
    assert drift.scale == pytest.approx(1.2)
    assert drift.disagreement < 1e-9


def test_anchors_that_disagree_have_drifted_in_shape() -> None:
    drift = judge_drift(BEFORE_MS, (18.0, 6.0, 1.5))
    assert drift.kind == "shape"
    assert drift.disagreement > 0.15


def test_sessions_without_a_common_anchor_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="share"):
        judge_drift(BEFORE_MS, ())
