"""Boosted regression trees as plain arrays: scikit-learn grows them, numpy alone reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NUM_TREES = 120
MAX_DEPTH = 3
LEARNING_RATE = 0.08
SUBSAMPLE = 0.7
MIN_ROWS_IN_LEAF = 4
LEAF = -1  # scikit-learn's mark of a node without children


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """Nodes from the root; `left` and `right` are LEAF where a node ends in its `value`."""

    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats

    def predict(self, inputs: Floats) -> Floats:
        node = np.zeros(len(inputs), dtype=np.int64)
        while True:
            inner = self.left[node] != LEAF
            if not inner.any():
                return np.asarray(self.value[node])
            # scikit-learn compares in single precision.
            chosen = inputs[np.arange(len(inputs)), np.maximum(self.feature[node], 0)]
            goes_left = chosen.astype(np.float32) <= self.threshold[node]
            child = np.where(goes_left, self.left[node], self.right[node])
            node = np.where(inner, child, node)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name).tolist() for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            feature=np.array(data["feature"], dtype=np.int64),
            threshold=np.array(data["threshold"], dtype=np.float64),
            left=np.array(data["left"], dtype=np.int64),
            right=np.array(data["right"], dtype=np.int64),
            value=np.array(data["value"], dtype=np.float64),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BoostedTrees:
    start: float
    trees: tuple[Tree, ...]

    @classmethod
    def fit(cls, inputs: Floats, values: Floats, weights: Floats, *, seed: int) -> Self:
        """Least squares on (n, d) inputs; needs scikit-learn."""
        from sklearn.ensemble import GradientBoostingRegressor

        model = GradientBoostingRegressor(
            n_estimators=NUM_TREES,
            max_depth=MAX_DEPTH,
            learning_rate=LEARNING_RATE,
            subsample=SUBSAMPLE,
            min_samples_leaf=MIN_ROWS_IN_LEAF,
            random_state=seed,
        )
        model.fit(inputs, values, sample_weight=weights)
        start = float(model.init_.constant_.item())
        return cls(start=start, trees=tuple(_read(stage[0].tree_) for stage in model.estimators_))

    def predict(self, inputs: Floats) -> Floats:
        total = np.full(len(inputs), self.start)
        for tree in self.trees:
            total += tree.predict(inputs)
        return total

    def to_json(self) -> dict[str, Any]:
        return {"start": self.start, "trees": [tree.to_json() for tree in self.trees]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            start=float(data["start"]), trees=tuple(Tree.from_json(tree) for tree in data["trees"])
        )


def _read(tree: Any) -> Tree:
    return Tree(
        feature=np.asarray(tree.feature, dtype=np.int64),
        threshold=np.asarray(tree.threshold, dtype=np.float64),
        left=np.asarray(tree.children_left, dtype=np.int64),
        right=np.asarray(tree.children_right, dtype=np.int64),
        value=LEARNING_RATE * np.asarray(tree.value[:, 0, 0], dtype=np.float64),
    )
