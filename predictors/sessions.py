"""Drift within a measuring session, told by anchors: networks whose normal latency is known.

Public data sets hold runs of hundreds of rows that are 20-40 % slow (HAT, Wang et al. 2020). An
anchor every few networks shows by how much the machine is off at that moment. Offsets in between
are smoothed by a Gaussian process over the order of measuring, with the exponential kernel: a
machine drifts and jumps, and forgets (Rasmussen and Williams 2006, section 4.2.1).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from predictors.linear import Layout, fit_prices

Floats = npt.NDArray[np.float64]

AMPLITUDES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
LENGTHS = (5.0, 15.0, 50.0, 150.0)  # in visits
NOISES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
ROUNDS = 4
MIN_ANCHORS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchors:
    """Visits of anchors: when, and log(measured / normal)."""

    at: Floats  # (a,) place in the order of measuring
    log_ratios: Floats  # (a,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Networks measured one after the other, with what `fit_prices` needs of them."""

    at: Floats  # (n,)
    terms: Floats  # (n, t)
    parts_ms: Floats  # (n, p)
    layout: Layout

    @property
    def measured_ms(self) -> Floats:
        return np.asarray(self.parts_ms.sum(axis=1))


def session_offsets(session: Session, anchors: Anchors) -> Floats:
    """(n,) log offset of each visit: divide its time by the exponential.

    All 0 where the other anchors do not foretell an anchor left out better than "no drift" does:
    then their own noise would cost more than the drift. Where they do, the networks' residuals
    tell of the drift between the anchors too.
    """
    if len(anchors.at) < MIN_ANCHORS or not _helps(anchors):
        return np.zeros(len(session.at))
    return _refined(session, anchors)


def _helps(anchors: Anchors) -> bool:
    left_out = []
    for place in range(len(anchors.at)):
        at, others = np.delete(anchors.at, place), np.delete(anchors.log_ratios, place)
        left_out.append(smoothed(at, others, anchors.at[[place]])[0])
    errors = np.abs(anchors.log_ratios - np.array(left_out))
    return bool(errors.mean() < np.abs(anchors.log_ratios).mean())


def smoothed(at: Floats, log_ratios: Floats, wanted_at: Floats) -> Floats:
    """(m,) offsets at other moments, averaged over variances and lengths by how likely each makes
    the ratios: a handful of anchors does not tell which is right."""
    distances = np.abs(at[:, None] - at[None, :])
    wanted = np.abs(wanted_at[:, None] - at[None, :])
    evidences, means = [], []
    for amplitude, length, noise in itertools.product(AMPLITUDES, LENGTHS, NOISES):
        covariance = amplitude**2 * np.exp(-distances / length) + noise**2 * np.eye(len(at))
        factor = scipy.linalg.cho_factor(covariance, lower=True)
        alpha = scipy.linalg.cho_solve(factor, log_ratios)
        log_determinant = 2 * np.log(np.diag(factor[0])).sum()
        evidences.append(-0.5 * float(log_ratios @ alpha + log_determinant))
        means.append(amplitude**2 * np.exp(-wanted / length) @ alpha)
    shares = np.exp(np.array(evidences) - max(evidences))
    return np.asarray(shares @ np.array(means) / shares.sum())


def _refined(session: Session, anchors: Anchors) -> Floats:
    """Prices and drift in turn (backfitting; Hastie and Tibshirani 1990, section 4.4)."""
    weights = np.ones(len(session.at))
    at = np.concatenate([session.at, anchors.at])
    offsets = smoothed(anchors.at, anchors.log_ratios, session.at)
    for _ in range(ROUNDS):
        parts_ms = session.parts_ms / np.exp(offsets)[:, None]
        prices = fit_prices(session.terms, parts_ms, weights, session.layout)
        residuals = np.log(session.measured_ms / (session.terms @ prices))
        offsets = smoothed(at, np.concatenate([residuals, anchors.log_ratios]), session.at)
    return offsets
