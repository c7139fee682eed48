"""Non-negative linear cost models: a latency as a sum of physical terms, each with its price.

Prices are shrunk towards one common price of all work, the harder the noisier the device and the
fewer the measurements (empirical Bayes: Efron and Morris 1973; ridge towards a prior mean). On a
noisy machine twenty measurements tell two or three numbers, not a dozen; on a quiet one the
measurements soon outvote the prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

RIDGE = 1e-4  # without a prior, only so that terms that cannot be told apart share their cost
# How far a term's share of a latency is from what the common price says, a priori; set on devices
# of HW-GPT-Bench that no published figure is about. Choosing it by leaving rows out lost as often
# as it won.
PRIOR_DEVIATION = 0.1
HUBER = 1.5  # deviations from which a row pulls no harder
HUBER_ROUNDS = 5
PRIOR_ROWS_OF_SCALE = 50  # rows that the calibration of the median starts from
OUTLIER_DEVIATIONS = 3.5
MIN_OUTLIER = 0.03  # residuals below this are never outliers, however exact the others are
MAX_OUTLIER_SHARE = 0.2
TINY = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Which terms are alike, and which part of the latency they are of.

    Terms of one family have the same price a priori, so they must be stated in one unit (say
    multiply-adds or their equivalent). Terms of a part are fitted to that part's own time.
    """

    families: Ints  # (t,)
    part_of_term: Ints  # (t,), from 0

    @classmethod
    def of(cls, terms: Floats, families: Ints | None, part_of_term: Ints | None) -> Layout:
        """By default constant terms are one family and all others the second; one part."""
        constant = np.ptp(terms, axis=0) <= TINY + 1e-9 * np.abs(terms).max(axis=0)
        return cls(
            families=np.where(constant, 0, 1) if families is None else np.asarray(families),
            part_of_term=np.zeros(terms.shape[1], dtype=np.int64)
            if part_of_term is None
            else np.asarray(part_of_term),
        )

    @property
    def num_parts(self) -> int:
        return int(self.part_of_term.max()) + 1


def fit_prices(terms: Floats, parts_ms: Floats, weights: Floats, layout: Layout) -> Floats:
    """Robust non-negative price of each term, (t,).

    Args:
        terms: (n, t), none negative.
        parts_ms: (n, p), above 0; their sum is the latency.
        weights: (n,); a row of weight 0 does not count.
    """
    prices = np.zeros(terms.shape[1])
    for part in range(layout.num_parts):
        own = layout.part_of_term == part
        prices[own] = _robust(terms[:, own], parts_ms[:, part], weights, layout.families[own])
    return prices * _calibration(terms @ prices, parts_ms.sum(axis=1), weights)


def find_outliers(
    terms: Floats, parts_ms: Floats, weights: Floats, trusted: Bools, layout: Layout
) -> Bools:
    """Rows far off the others' robust fit; at most a fifth of the rows.

    Args:
        trusted: (n,) rows that are never outliers.
    """
    outliers = np.zeros(len(terms), dtype=np.bool_)
    measured_ms = parts_ms.sum(axis=1)
    for _ in range(2):
        prices = fit_prices(terms, parts_ms, np.where(outliers, 0.0, weights), layout)
        residuals = np.log(measured_ms / np.maximum(terms @ prices, 1e-9 * measured_ms))
        middle = np.median(residuals[~outliers])
        distance = np.where(trusted, 0.0, np.abs(residuals - middle))
        spread = 1.4826 * float(np.median(np.abs(residuals[~outliers] - middle)))
        found = distance > max(MIN_OUTLIER, OUTLIER_DEVIATIONS * spread)
        allowed = int(MAX_OUTLIER_SHARE * len(terms))
        if found.sum() > allowed:
            found = distance > np.sort(distance)[len(distance) - allowed - 1]
        if (found == outliers).all():
            break
        outliers = found
    return outliers


def fit_costs(
    terms: Floats,
    measured_ms: Floats,
    weights: Floats,
    *,
    ridge: float = RIDGE,
    toward: Floats | None = None,
) -> Floats:
    """Non-negative cost of each term, least squares of relative errors, with a ridge.

    Columns are scaled after weighting: otherwise the ridge would swamp the small latencies.

    Args:
        ridge: as a share of the weight of all rows.
        toward: (t,) costs that the ridge pulls to; 0 where not given.
    """
    root = np.sqrt(weights) / measured_ms
    design = terms * root[:, None]
    scale = np.linalg.norm(design, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    pulled = np.zeros(len(scale)) if toward is None else toward * scale
    stacked = np.vstack([design / scale, np.sqrt(ridge) * np.eye(len(scale))])
    costs, _ = scipy.optimize.nnls(
        stacked, np.concatenate([measured_ms * root, np.sqrt(ridge) * pulled])
    )
    return np.asarray(costs / scale, dtype=np.float64)


def _robust(terms: Floats, measured_ms: Floats, weights: Floats, families: Ints) -> Floats:
    """Iteratively reweighted least squares with Huber's weights (Huber 1981, section 7.8): a slow
    spell pulls no harder than by its length."""
    costs, pull = np.zeros(terms.shape[1]), weights
    counted = weights > 0
    for _ in range(HUBER_ROUNDS):
        costs, freedom = _shrunk(terms, measured_ms, pull, families)
        errors = np.abs(terms @ costs / measured_ms - 1)
        typical = 1.4826 * freedom * float(np.median(errors[counted])) if counted.any() else 0.0
        latest = weights * np.minimum(1, HUBER * typical / np.maximum(errors, TINY))
        if typical <= 0 or np.allclose(latest, pull, rtol=0.01):
            break
        pull = latest
    return costs


def _shrunk(
    terms: Floats, measured_ms: Floats, weights: Floats, families: Ints
) -> tuple[Floats, float]:
    """Prices, and by how much errors of the fitted rows understate those of others."""
    free = fit_costs(terms, measured_ms, weights)
    num_rows = max(int((weights > 0).sum()), 1)
    freedom = num_rows / max(num_rows - int((free > 0).sum()), 3)
    variance = freedom * np.average((terms @ free / measured_ms - 1) ** 2, weights=weights)
    ridge = float(variance) / (num_rows * PRIOR_DEVIATION**2)
    _, family = np.unique(families, return_inverse=True)
    sums = np.stack([terms[:, family == f].sum(axis=1) for f in range(family.max() + 1)], axis=1)
    common = fit_costs(sums, measured_ms, weights, ridge=1e-6)[family]
    costs = fit_costs(terms, measured_ms, weights, ridge=ridge, toward=common)
    return costs, float(np.sqrt(freedom))


def _calibration(predicted_ms: Floats, measured_ms: Floats, weights: Floats) -> float:
    """The factor with the least mean relative error; little of it is believed of few rows.

    Noise is skewed, slow runs being commoner than fast ones: then the mean is not the median.
    """
    counted = (weights > 0) & (predicted_ms > 0)
    if not counted.any():
        return 1.0
    ratios = measured_ms[counted] / predicted_ms[counted]
    order = np.argsort(ratios)
    votes = np.cumsum((weights[counted] / ratios)[order])
    best = ratios[order][np.searchsorted(votes, votes[-1] / 2)]
    num_rows = int(counted.sum())
    return float(best ** (num_rows / (num_rows + PRIOR_ROWS_OF_SCALE)))
