"""Drift within a session, told by anchors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from predictors.linear import Layout
from predictors.sessions import Anchors, Session, session_offsets, smoothed

Floats = npt.NDArray[np.float64]
PRICES = np.array([5.0, 1.0, 0.5])


def measured_session(
    drift: Floats, noise: float = 0.005, seed: int = 0
) -> tuple[Session, Anchors, Floats]:
    """36 visits of which every sixth is an anchor; `drift` (36,) is in logs."""
    rng = np.random.default_rng(seed)
    at = np.arange(36.0)
    terms = np.column_stack([np.ones(36), rng.uniform(20, 100, (36, 2))])
    times = terms @ PRICES * np.exp(drift + rng.normal(0, noise, 36))
    is_anchor = np.arange(36) % 6 == 2
    session = Session(
        at=at[~is_anchor],
        terms=terms[~is_anchor],
        parts_ms=times[~is_anchor, None],
        layout=Layout.of(terms, None, None),
    )
    ratios = np.log(times / (terms @ PRICES))[is_anchor]
    return session, Anchors(at=at[is_anchor], log_ratios=ratios), drift[~is_anchor]


@pytest.mark.parametrize(
    "drift",
    [np.full(36, 0.22), np.where(np.arange(36) < 15, 0.0, 0.3), 0.1 * np.linspace(0, 1, 36)],
    ids=["slow throughout", "a jump", "a ramp"],
)
def test_anchors_tell_the_drift(drift: Floats) -> None:
    session, anchors, truth = measured_session(drift)

    offsets = session_offsets(session, anchors)

    assert np.abs(offsets - truth).mean() < 0.1 * np.abs(truth).max()


def test_a_steady_machine_is_left_alone() -> None:
    session, anchors, _ = measured_session(np.zeros(36), noise=0.05)

    assert np.abs(session_offsets(session, anchors)).max() < 0.02


def test_too_few_anchors_correct_nothing() -> None:
    session, anchors, _ = measured_session(np.full(36, 0.22))
    two = Anchors(at=anchors.at[:2], log_ratios=anchors.log_ratios[:2])

    assert not session_offsets(session, two).any()


def test_offsets_fade_far_from_every_anchor() -> None:
    near, far = smoothed(np.arange(5.0), np.full(5, 0.2), np.array([2.0, 1e6]))

    assert near == pytest.approx(0.2, rel=0.1)
    assert far == pytest.approx(0.0, abs=1e-6)
