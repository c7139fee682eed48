"""A model of a figure that only evaluation tells, from the networks evaluated so far.

Gaussian processes over numbers that describe a network. Kernel, length and noise are those whose
predictions of each network from all the others are likeliest (leave-one-out, in closed form), and
these residuals set the scale: a predicted deviation is as wide as errors have been.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.spatial.distance import cdist, pdist

from search.objectives import Floats
from search.space import SearchSpace, SubnetConfig

LENGTHS = (0.5, 1.0, 2.0, 4.0)  # of the median distance between networks
LINEAR_SHARES = (0.0, 0.5, 0.9)
NOISES = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
RIDGE = 0.03
RELEVANCE_FLOOR = 0.1


def describe(space: SearchSpace, subnets: Sequence[SubnetConfig]) -> Floats:
    """Numbers between 0 and 1 that tell networks apart, (networks, features).

    For each layer of the supernet whether it is kept, its heads, its neurons and whether it runs
    in int8; then depth, and the width of the stream. What a dropped layer would have is 0.
    """
    num_layers = len(space.layer_order)
    widest = space.embed_dim[-1] if space.embed_dim else 0
    rows = np.zeros((len(subnets), 4, num_layers))
    rest = np.zeros((len(subnets), 2))
    for row, shared, subnet in zip(rows, rest, subnets, strict=True):
        for place, layer in enumerate(subnet.layers):
            row[:, layer] = (
                1.0,
                subnet.num_heads[place] / space.num_heads[-1],
                subnet.ffn_dim[place] / space.ffn_dim[-1],
                subnet.precision_of(layer) == "int8",
            )
        shared[:] = subnet.num_layers / num_layers, (subnet.embed_dim or 0) / max(1, widest)
    return np.concatenate([rows.reshape(len(subnets), 4 * num_layers), rest], axis=1)


@dataclass(frozen=True, slots=True)
class Belief:
    """Normal distributions of a figure of some networks: `mean` (n,), `covariance` (n, n).

    `noise` is the variance that an evaluation adds, the part that no description explains.
    """

    mean: Floats
    covariance: Floats
    noise: float

    @property
    def deviation(self) -> Floats:
        """Of what an evaluation would show, (n,)."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0) + self.noise)

    def having_seen(self, place: int) -> Belief:
        """As it would be, had the network at `place` been evaluated to what is expected of it."""
        column = self.covariance[:, place]
        gain = column / (column[place] + self.noise + 1e-12)
        return replace(self, covariance=self.covariance - np.outer(gain, column))


class Surrogate:
    """A Gaussian process fitted to evaluated networks; see `fit`."""

    def __init__(
        self, kernel: _Kernel, scaling: _Scaling, known: Floats, solved: _Solved, values: Floats
    ) -> None:
        self._kernel = kernel
        self._scaling = scaling
        self._known = known
        self._solved = solved
        self._mean, self._unit = float(values.mean()), _deviation(values)

    @classmethod
    def fit(cls, features: Floats, values: Floats) -> Self:
        """The likeliest of a few kernels, lengths and noises, each network left out in turn.

        Leave-one-out in closed form: Rasmussen and Williams, Gaussian Processes for Machine
        Learning, section 5.4.2.

        Args:
            features: (networks, features), see `describe`; at least two networks.
            values: (networks,).
        """
        targets = (values - values.mean()) / _deviation(values)
        best: tuple[float, _Kernel, _Scaling, Floats, _Solved] | None = None
        for scaling in (_Scaling.even(features), _Scaling.by_relevance(features, targets)):
            known = scaling(features)
            median = float(np.median(pdist(known))) or 1.0
            for share, length in itertools.product(LINEAR_SHARES, LENGTHS):
                kernel = _Kernel(share, length * median)
                for likelihood, solved in _solutions(kernel(known, known), targets):
                    if best is None or likelihood > best[0]:
                        best = (likelihood, kernel, scaling, known, solved)
        assert best is not None
        _, kernel, scaling, known, solved = best
        return cls(kernel, scaling, known, solved, values)

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean and deviation of what an evaluation of each would show, (networks,) each."""
        asked = self._scaling(features)
        shared = self._kernel(asked, self._known)
        solved = self._solved
        explained = ((shared @ solved.inverse) * shared).sum(axis=1)
        variance = self._kernel.diagonal(asked) - explained + solved.noise
        deviation = self._unit * np.sqrt(solved.scale * np.maximum(variance, 0.0))
        return self._mean + self._unit * (shared @ solved.weights), deviation

    def believe(self, features: Floats) -> Belief:
        """The same for all of them together."""
        asked = self._scaling(features)
        shared = self._kernel(asked, self._known)
        solved = self._solved
        variance = self._unit**2 * solved.scale
        unexplained = self._kernel(asked, asked) - shared @ solved.inverse @ shared.T
        return Belief(
            mean=self._mean + self._unit * (shared @ solved.weights),
            covariance=variance * unexplained,
            noise=variance * solved.noise,
        )


@dataclass(frozen=True, slots=True)
class _Kernel:
    """A share of straight lines, the rest Matern of order 5/2, over scaled features."""

    linear_share: float
    length: float

    def __call__(self, one: Floats, other: Floats) -> Floats:
        distance = np.sqrt(5) * cdist(one, other) / self.length
        matern = (1 + distance + distance**2 / 3) * np.exp(-distance)
        return np.asarray(self.linear_share * (one @ other.T) + (1 - self.linear_share) * matern)

    def diagonal(self, points: Floats) -> Floats:
        return np.asarray(self.linear_share * (points**2).sum(axis=1) + 1 - self.linear_share)


@dataclass(frozen=True, slots=True)
class _Scaling:
    """Features around 0 whose weights say how far each of them sets networks apart."""

    center: Floats
    weights: Floats

    @classmethod
    def even(cls, features: Floats) -> Self:
        spread = features.std(axis=0)
        varies = spread > 0
        weights = np.where(varies, 1 / np.where(varies, spread, 1.0), 0.0)
        return cls(features.mean(axis=0), weights / np.sqrt(max(1, varies.sum())))

    @classmethod
    def by_relevance(cls, features: Floats, targets: Floats) -> Self:
        """Weighed by the size of each feature's effect in a ridge regression, and a floor."""
        even = cls.even(features)
        x = even(features)
        ridge = x.T @ x + RIDGE * len(x) / max(1, x.shape[1]) * np.eye(x.shape[1])
        effects = np.abs(np.linalg.solve(ridge, x.T @ targets))
        share = np.sqrt(effects / max(effects.max(), 1e-12)) + RELEVANCE_FLOOR
        weights = even.weights * share
        length = np.sqrt(np.mean(np.sum(((features - even.center) * weights) ** 2, axis=1)))
        return cls(even.center, weights / max(length, 1e-12))

    def __call__(self, features: Floats) -> Floats:
        return (features - self.center) * self.weights


@dataclass(frozen=True, slots=True)
class _Solved:
    """A kernel's solution: mean = k . weights, variance = scale (k** - k . inverse . k)."""

    weights: Floats
    inverse: Floats
    scale: float
    noise: float


def _solutions(gram: Floats, targets: Floats) -> Iterator[tuple[float, _Solved]]:
    """For every noise the log-likelihood of the networks left out, and the solution."""
    eigenvalues, vectors = np.linalg.eigh(gram)
    for noise in NOISES:
        inverse = (vectors / (np.maximum(eigenvalues, 0.0) + noise)) @ vectors.T
        weights = inverse @ targets
        diagonal = np.diag(inverse)
        scale = max(float(np.mean(weights**2 / diagonal)), 1e-12)
        likelihood = 0.5 * float(np.sum(np.log(diagonal))) - 0.5 * len(targets) * np.log(scale)
        yield likelihood, _Solved(weights, inverse, scale, noise)


def _deviation(values: Floats) -> float:
    return float(values.std()) or 1.0
