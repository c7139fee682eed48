"""Help from predictors of other devices, taken only where leaving rows out says that it helps.

It often does not: with twenty measurements of its own, a linear model of a transformer's latency
gained nothing from thirteen other devices. It pays with few measurements, and on noisy devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from predictors.linear import fit_costs
from predictors.metrics import clearly_less

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MIN_ROWS = 10  # real measurements of the device itself, always
MIN_GAIN = 0.05  # of the error on rows left out
TINY = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """How sources and the device's own linear model are combined.

    "stack" is a non-negative sum of both; "proxy" a power law of one source, after One-Proxy
    (Lu et al. 2021).
    """

    kind: str
    weights: Floats  # (s + 1,) own model last; of a proxy (2,) offset and exponent
    fold_weights: Floats  # (k, the same)
    proxy: int = 0  # which source

    def left_out_logs(self, sources: Floats, fold_base: Floats, fold_of_row: Ints) -> Floats:
        """(n,) of the fitted rows, by the models without each."""
        columns = _columns(self.kind, sources, fold_base, self.proxy)
        return self._log(np.einsum("nc,nc->n", columns, self.fold_weights[fold_of_row]))

    def predicted_logs(
        self, sources: Floats, base: Floats, fold_base: Floats
    ) -> tuple[Floats, Floats]:
        """(m,) and (m, k) of new rows."""
        by_fold = [
            _columns(self.kind, sources, fold_base[:, fold], self.proxy) @ weights
            for fold, weights in enumerate(self.fold_weights)
        ]
        columns = _columns(self.kind, sources, base, self.proxy)
        return self._log(columns @ self.weights), self._log(np.stack(by_fold, axis=1))

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "weights": self.weights.tolist(),
            "fold_weights": self.fold_weights.tolist(),
            "proxy": self.proxy,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            kind=data["kind"],
            weights=np.array(data["weights"], dtype=np.float64),
            fold_weights=np.array(data["fold_weights"], dtype=np.float64),
            proxy=int(data["proxy"]),
        )

    def _log(self, values: Floats) -> Floats:
        if self.kind == "proxy":  # its columns are logarithms already
            return values
        return np.asarray(np.log(np.maximum(values, TINY)))


def choose_sources(
    sources: Floats | None,
    measured_ms: Floats,
    base: Floats,
    fold_base: Floats,
    weights: Floats,
    fold_of_row: Ints,
) -> Sources | None:
    """The combination with the smallest error on rows left out; None where none is better than
    the device's own model.

    Args:
        sources: (n, s) ms, or None.
        base: (n,) log prediction of the own model; `fold_base` by the models without each row.
    """
    if sources is None or sources.shape[1] == 0 or len(measured_ms) < MIN_ROWS:
        return None
    logs = np.log(measured_ms)
    own_errors = np.abs(logs - fold_base)
    proxies = [
        _fit("proxy", sources, logs, base, weights, fold_of_row, proxy)
        for proxy in range(sources.shape[1])
    ]
    best, best_error = None, float(np.average(own_errors, weights=weights))
    for candidate in (_fit("stack", sources, logs, base, weights, fold_of_row), *proxies):
        errors = np.abs(logs - candidate.left_out_logs(sources, fold_base, fold_of_row))
        error = float(np.average(errors, weights=weights))
        if error < best_error and clearly_less(errors, own_errors, weights, MIN_GAIN):
            best, best_error = candidate, error
    return best


def _fit(
    kind: str,
    sources: Floats,
    logs: Floats,
    base: Floats,
    weights: Floats,
    fold_of_row: Ints,
    proxy: int = 0,
) -> Sources:
    columns = _columns(kind, sources, base, proxy)

    def solve(counted: Floats) -> Floats:
        if kind == "stack":
            return fit_costs(columns, np.exp(logs), counted)
        root = np.sqrt(counted)
        solution = np.linalg.lstsq(columns * root[:, None], logs * root, rcond=None)[0]
        return np.asarray(solution, dtype=np.float64)

    folds = [
        solve(np.where(fold_of_row == fold, 0.0, weights)) for fold in range(fold_of_row.max() + 1)
    ]
    return Sources(kind=kind, weights=solve(weights), fold_weights=np.array(folds), proxy=proxy)


def _columns(kind: str, sources: Floats, base: Floats, proxy: int) -> Floats:
    if kind == "stack":
        return np.hstack([sources, np.exp(base)[:, None]])
    return np.stack([np.ones(len(base)), np.log(sources[:, proxy])], axis=1)
