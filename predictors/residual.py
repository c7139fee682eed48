"""What a linear cost model leaves over, in logs: nothing, a Gaussian process, or trees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from predictors.gp import GaussianProcess
from predictors.metrics import clearly_less
from predictors.trees import BoostedTrees

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MIN_ROWS_FOR_GP = 12
MAX_ROWS_FOR_GP = 600  # beyond, its cubes of n take seconds
MIN_ROWS_FOR_TREES = 200
MIN_GAIN = 0.03  # of the error on rows left out, or the simpler model stays
MARGIN = 1.5  # a residual may exceed those seen by this factor


class Residual(Protocol):
    @property
    def kind(self) -> str: ...

    def predict(self, inputs: Floats) -> Floats:
        """(m,) log corrections."""
        ...

    def predict_folds(self, inputs: Floats) -> Floats | float:
        """(m, k) by the models of the folds."""
        ...

    def fitted_folds(self) -> Floats | float:
        """(n,) of each fitted row by the model without it."""
        ...

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class NoResidual:
    kind: str = "none"

    def predict(self, inputs: Floats) -> Floats:
        return np.zeros(len(inputs))

    def predict_folds(self, inputs: Floats) -> Floats | float:
        return 0.0

    def fitted_folds(self) -> Floats | float:
        return 0.0

    def to_json(self) -> dict[str, Any]:
        return {"kind": "none"}


@dataclass(frozen=True, kw_only=True, slots=True)
class GpResidual:
    process: GaussianProcess
    fold_alphas: Floats  # (n, k)
    fitted: Floats  # (n,) of each row by the process without it
    limit: float
    kind: str = "gp"

    @classmethod
    def fit(
        cls,
        inputs: Floats,
        left_over: Floats,
        left_over_by_fold: Floats,
        weights: Floats,
        fold_of_row: Ints,
    ) -> GpResidual:
        """Args: as those of `choose_residual`."""
        used = weights > 0
        values = np.where(used, left_over, 0.0)
        # A row that does not count stays in place, with a noise that mutes it.
        muted = np.where(used, weights, 1e-6)
        process = GaussianProcess.fit(inputs, values, muted)
        alphas, fitted = [], np.zeros(len(values))
        for fold in range(int(fold_of_row.max()) + 1):
            out = fold_of_row == fold
            alpha = process.fold_alpha(left_over_by_fold[:, fold], ~out & used, muted)
            alphas.append(alpha)
            fitted[out] = process.predict(inputs[out], alpha)
        limit = MARGIN * float(np.abs(values).max())
        return cls(
            process=process,
            fold_alphas=np.stack(alphas, axis=1),
            fitted=np.clip(fitted, -limit, limit),
            limit=limit,
        )

    def predict(self, inputs: Floats) -> Floats:
        return np.clip(self.process.predict(inputs), -self.limit, self.limit)

    def predict_folds(self, inputs: Floats) -> Floats | float:
        return np.clip(self.process.predict(inputs, self.fold_alphas), -self.limit, self.limit)

    def fitted_folds(self) -> Floats | float:
        return self.fitted

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "process": self.process.to_json(),
            "fold_alphas": self.fold_alphas.tolist(),
            "fitted": self.fitted.tolist(),
            "limit": self.limit,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class TreesResidual:
    """One ensemble for predictions; those of the folds only judge it, so that its votes are the
    ensemble's own (plain cross-validation in place of CV+)."""

    trees: BoostedTrees
    fitted: Floats
    limit: float
    kind: str = "trees"

    @classmethod
    def fit(
        cls,
        inputs: Floats,
        left_over: Floats,
        weights: Floats,
        fold_of_row: Ints,
        seed: int,
    ) -> TreesResidual:
        fitted = np.zeros(len(left_over))
        for part in range(5):
            out = fold_of_row % 5 == part
            trees = BoostedTrees.fit(inputs[~out], left_over[~out], weights[~out], seed=seed)
            fitted[out] = trees.predict(inputs[out])
        return cls(
            trees=BoostedTrees.fit(inputs, left_over, weights, seed=seed),
            fitted=fitted,
            limit=MARGIN * float(np.abs(left_over[weights > 0]).max()),
        )

    def predict(self, inputs: Floats) -> Floats:
        return np.clip(self.trees.predict(inputs), -self.limit, self.limit)

    def predict_folds(self, inputs: Floats) -> Floats | float:
        return self.predict(inputs)[:, None]

    def fitted_folds(self) -> Floats | float:
        return self.fitted

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "trees": self.trees.to_json(),
            "fitted": self.fitted.tolist(),
            "limit": self.limit,
        }


def choose_residual(
    wanted: str,
    inputs: Floats,
    left_over: Floats,
    left_over_by_fold: Floats,
    weights: Floats,
    fold_of_row: Ints,
    *,
    seed: int,
) -> Residual:
    """The residual with the smallest error on rows left out; the simpler one unless it pays.

    Args:
        wanted: "auto", or the kind to take whatever it brings.
        left_over: (n,) log residuals of the linear model of all rows.
        left_over_by_fold: (n, k) the same of the models of the folds.
    """
    num_rows = int((weights > 0).sum())
    candidates: list[Residual] = []
    if wanted in ("auto", "none"):
        candidates.append(NoResidual())
    if wanted == "gp" or (
        wanted == "auto" and num_rows >= MIN_ROWS_FOR_GP and len(weights) <= MAX_ROWS_FOR_GP
    ):
        candidates.append(
            GpResidual.fit(inputs, left_over, left_over_by_fold, weights, fold_of_row)
        )
    if wanted == "trees" or (wanted == "auto" and num_rows >= MIN_ROWS_FOR_TREES):
        candidates.append(TreesResidual.fit(inputs, left_over, weights, fold_of_row, seed))
    fold_left_over = left_over_by_fold[np.arange(len(left_over)), fold_of_row]
    best, best_errors = candidates[0], np.abs(fold_left_over - candidates[0].fitted_folds())
    for candidate in candidates[1:]:
        errors = np.abs(fold_left_over - candidate.fitted_folds())
        if clearly_less(errors, best_errors, weights, MIN_GAIN):
            best, best_errors = candidate, errors
    return best


def residual_from_json(data: Mapping[str, Any]) -> Residual:
    """Raises: ValueError for a kind that is not known."""
    kind = data["kind"]
    if kind == "none":
        return NoResidual()
    if kind not in ("gp", "trees"):
        raise ValueError(f"there is no residual of kind {kind!r}")
    fitted, limit = np.array(data["fitted"], dtype=np.float64), float(data["limit"])
    if kind == "trees":
        trees = BoostedTrees.from_json(data["trees"])
        return TreesResidual(trees=trees, fitted=fitted, limit=limit)
    return GpResidual(
        process=GaussianProcess.from_json(data["process"]),
        fold_alphas=np.array(data["fold_alphas"], dtype=np.float64),
        fitted=fitted,
        limit=limit,
    )
