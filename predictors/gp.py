"""A small Gaussian process for what a linear cost model leaves over.

Its kernel is a straight line plus a smooth bump (squared exponential), with noise; four numbers,
found by maximising the posterior (Rasmussen and Williams 2006, sections 2.2 and 5.4), so that a
few dozen measurements cannot be bent to. The mean is 0: far from all rows it adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts when they are used: an API, which only predicts, needs none

Floats = npt.NDArray[np.float64]

# Medians of the priors of (linear scale, smooth scale, length, noise), in units of the residual's
# deviation and, for the length, of a typical distance; each is lognormal with this deviation.
PRIOR_MEDIANS = np.array([0.5, 0.5, 1.0, 0.5])
PRIOR_DEVIATION = 1.0
JITTER = 1e-8


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianProcess:
    """Fitted to standardised inputs; `alpha` weighs the kernel to each row."""

    center: Floats  # (d,)
    scale: Floats  # (d,); 0 where an input never varied, which is then ignored
    rows: Floats  # (n, d), standardised
    log_hyper: Floats  # (4,)
    alpha: Floats  # (n,)

    @classmethod
    def fit(cls, inputs: Floats, values: Floats, weights: Floats | None = None) -> Self:
        """Args:
        inputs: (n, d).
        values: (n,), around 0.
        weights: (n,); a row of weight w has the noise's variance divided by w.
        """
        center = inputs.mean(axis=0)
        deviation = inputs.std(axis=0)
        scale = np.where(deviation > 1e-9 * (1 + np.abs(center)), deviation, 0.0)
        rows = _standardised(inputs, center, scale)
        noise_shares = np.ones(len(values)) if weights is None else 1 / np.maximum(weights, 1e-6)
        log_hyper = _best_hyper(rows, values, noise_shares)
        alpha = _alpha(rows, values, noise_shares, log_hyper)
        return cls(center=center, scale=scale, rows=rows, log_hyper=log_hyper, alpha=alpha)

    def predict(self, inputs: Floats, alpha: Floats | None = None) -> Floats:
        """Means at (m, d): (m,), or (m, k) for the (n, k) of `fold_alphas`."""
        kernel = _kernel(_standardised(inputs, self.center, self.scale), self.rows, self.log_hyper)
        return np.asarray(kernel @ (self.alpha if alpha is None else alpha))

    def fold_alpha(self, values: Floats, kept: npt.NDArray[np.bool_], weights: Floats) -> Floats:
        """(n,) `alpha` of the same hyperparameters on the kept rows; 0 for the others."""
        alpha = np.zeros(len(values))
        shares = 1 / np.maximum(weights[kept], 1e-6)
        alpha[kept] = _alpha(self.rows[kept], values[kept], shares, self.log_hyper)
        return alpha

    def to_json(self) -> dict[str, Any]:
        names = ("center", "scale", "rows", "log_hyper", "alpha")
        return {name: getattr(self, name).tolist() for name in names}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{name: np.array(values, dtype=np.float64) for name, values in data.items()})


def _standardised(inputs: Floats, center: Floats, scale: Floats) -> Floats:
    used = scale > 0
    return np.asarray((inputs[:, used] - center[used]) / scale[used] / np.sqrt(max(1, used.sum())))


def _distances(first: Floats, second: Floats) -> Floats:
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None, :] - 2 * first @ second.T
    return np.asarray(np.maximum(squares, 0.0))


def _kernel(first: Floats, second: Floats, log_hyper: Floats) -> Floats:
    linear, smooth, length, _ = np.exp(log_hyper)
    bumps = np.exp(-0.5 * _distances(first, second) / length**2)
    return np.asarray(linear**2 * (first @ second.T) + smooth**2 * bumps)


def _alpha(rows: Floats, values: Floats, noise_shares: Floats, log_hyper: Floats) -> Floats:
    noise = np.exp(log_hyper[3]) ** 2
    covariance = _kernel(rows, rows, log_hyper) + np.diag(noise * noise_shares + JITTER * noise)
    return np.asarray(
        scipy.linalg.cho_solve(scipy.linalg.cho_factor(covariance, lower=True), values)
    )


def _best_hyper(rows: Floats, values: Floats, noise_shares: Floats) -> Floats:
    deviation = max(float(values.std()), 1e-9)
    medians = np.log(PRIOR_MEDIANS * [deviation, deviation, 1.0, deviation])
    products, distances = rows @ rows.T, _distances(rows, rows)
    found = scipy.optimize.minimize(
        _negative_log_posterior,
        medians,
        args=(products, distances, values, noise_shares, medians),
        jac=True,
        method="L-BFGS-B",
        bounds=[(m - 5, m + 4) for m in medians],
    )
    return np.asarray(found.x, dtype=np.float64)


def _negative_log_posterior(
    log_hyper: Floats,
    products: Floats,
    distances: Floats,
    values: Floats,
    noise_shares: Floats,
    medians: Floats,
) -> tuple[float, Floats]:
    """With its gradient; (5.9) of the book and the priors' terms."""
    linear, smooth, length, noise = np.exp(log_hyper)
    bumps = np.exp(-0.5 * distances / length**2)
    noise_part = np.diag(noise**2 * noise_shares)
    covariance = linear**2 * products + smooth**2 * bumps + noise_part
    covariance[np.diag_indices_from(covariance)] += JITTER * noise**2
    factor = scipy.linalg.cho_factor(covariance, lower=True)
    alpha = scipy.linalg.cho_solve(factor, values)
    inverse = scipy.linalg.cho_solve(factor, np.eye(len(values)))
    inner = np.outer(alpha, alpha) - inverse
    derivatives = (
        2 * linear**2 * products,
        2 * smooth**2 * bumps,
        smooth**2 * bumps * distances / length**2,
        2 * noise_part,
    )
    gradient = np.array([-0.5 * float((inner * d).sum()) for d in derivatives])
    offsets = (log_hyper - medians) / PRIOR_DEVIATION
    value = 0.5 * float(values @ alpha) + float(np.log(np.diag(factor[0])).sum())
    return value + 0.5 * float(offsets @ offsets), gradient + offsets / PRIOR_DEVIATION
