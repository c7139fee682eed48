"""Latency of any network of a space on one device, from a few measured ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from predictors.costmodel import CostModel, Prediction
from predictors.features import (
    PARTS,
    TERM_NAMES,
    TERM_PARTS,
    Floats,
    NetworkPoint,
    latency_details,
    latency_terms,
    merge_proportional,
)
from predictors.key import PredictorKey
from predictors.rows import LatencyRow
from predictors.spread import log_half_width, session_spread
from search.errors import InvalidInput
from search.shape import ModelShape
from search.space import SubnetConfig

Statistic = Literal["p50", "p95"]
STATISTICS: tuple[Statistic, ...] = ("p50", "p95")

PAYLOAD_VERSION = 3  # raise it when terms change: an older payload is refused, not misread
COVERAGE = 0.9
RANGE_TOLERANCE = 0.02
MIN_ROWS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyEstimate:
    """Arrays parallel to the predicted networks.

    A new network's latency lies within [lower_ms, upper_ms] nine times in ten, also in another
    session, once that session's anchors have been related to these. Where
    `extrapolates` is true a term lies beyond all that was measured: then measure, do not trust.
    """

    mean_ms: Floats
    lower_ms: Floats
    upper_ms: Floats
    extrapolates: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.mean_ms)

    @property
    def half_widths(self) -> Floats:
        """Of the intervals, as shares of the mean."""
        return np.asarray((self.upper_ms - self.lower_ms) / 2 / self.mean_ms)


class LatencyPredictor:
    """Of one `PredictorKey` and one model's shape; batch size and sequence length are features.

    Immutable; see `fit`. Latencies are those of the first session at each size of input: rows of
    later sessions are scaled by what the anchors say.
    """

    def __init__(
        self,
        *,
        key: PredictorKey,
        shape: ModelShape,
        rows: Sequence[LatencyRow],
        macs_per_byte: float,
        groups: tuple[tuple[int, ...], ...],
        model: CostModel,
        sources: Sequence[LatencyPredictor] = (),
    ) -> None:
        self.key = key
        self.shape = shape
        self.rows = tuple(rows)
        self.macs_per_byte = macs_per_byte
        self.sources = tuple(sources)
        self._groups = groups
        self._model = model
        terms = self._terms([row.point for row in rows])
        self._lowest, self._highest = terms.min(axis=0), terms.max(axis=0)
        self._tails = np.array([row.p95_ms / row.median_ms for row in rows])
        self._spread = session_spread(rows)
        self._num_anchors = min(len(row.anchors_ms) for row in rows)

    @classmethod
    def fit(
        cls,
        rows: Sequence[LatencyRow],
        *,
        key: PredictorKey,
        shape: ModelShape,
        macs_per_byte: float,
        sources: Sequence[LatencyPredictor] = (),
        seed: int = 0,
    ) -> Self:
        """Fitted to measured networks of the key's precision.

        Args:
            sources: predictors of other devices for the same shape; their help is taken only
                where leaving rows out shows that it helps.

        Raises:
            InvalidInput: too few rows, or rows of another precision.
        """
        if len(rows) < MIN_ROWS:
            raise InvalidInput(
                "measurements", f"{key.precision}: {len(rows)}, at least {MIN_ROWS} are needed"
            )
        if strangers := {r.subnet.precision for r in rows} - {key.precision}:
            raise InvalidInput(
                "measurements", f"{sorted(strangers)} in a {key.precision} predictor"
            )
        points = [row.point for row in rows]
        terms = latency_terms(shape, points, macs_per_byte=macs_per_byte, phase=key.phase)
        groups = merge_proportional(terms)
        weights = np.array([row.weight for row in rows])
        model = CostModel.fit(
            _merged(terms, groups),
            scaled_medians_ms(rows),
            details=latency_details(shape, points),
            weights=weights,
            # What was measured on purpose, where the fit was wrong, is evidence, not an outlier.
            trusted=weights > 1,
            sources=_source_ms(sources, points),
            seed=seed,
        )
        return cls(
            key=key,
            shape=shape,
            rows=rows,
            macs_per_byte=macs_per_byte,
            groups=groups,
            model=model,
            sources=sources if model.uses_sources else (),
        )

    @property
    def kind(self) -> str:
        """How the model is built: "nnls", with a residual, or with other devices' help."""
        return self._model.kind

    @property
    def num_outliers(self) -> int:
        """Rows that were too far off to be fitted; the intervals still count them."""
        return int(self._model.outliers.sum())

    def predict(
        self, points: Sequence[NetworkPoint], statistic: Statistic = "p50"
    ) -> LatencyEstimate:
        terms = self._terms(points)
        prediction = self._prediction(points, terms)
        below = terms < self._lowest * (1 - RANGE_TOLERANCE)
        above = terms > self._highest * (1 + RANGE_TOLERANCE)
        low, middle, high = 1.0, 1.0, 1.0
        if statistic == "p95":
            low, middle, high = np.quantile(self._tails, [1 - COVERAGE, 0.5, COVERAGE])
        return LatencyEstimate(
            mean_ms=prediction.mean_ms * middle,
            lower_ms=self._bound_ms(prediction.mean_ms, prediction.lower_ms, -1) * low,
            upper_ms=self._bound_ms(prediction.mean_ms, prediction.upper_ms, 1) * high,
            extrapolates=np.asarray((below | above).any(axis=1) | prediction.extrapolates),
        )

    def cross_validated_ms(self) -> Floats:
        """Prediction of each row by a model that was fitted without it."""
        return self._model.cross_validated_ms

    def measured_ms(self, rows: Sequence[LatencyRow]) -> Floats:
        """Medians as they would be in the sessions that predictions refer to."""
        return scaled_medians_ms(rows, normal=anchors_by_size(self.rows))

    def explain(self, point: NetworkPoint) -> dict[str, float]:
        """Share of the predicted latency by part; the shares sum to 1.

        Costs that no measurement tells apart are shared out by the work that they stand for.
        """
        terms = self._terms([point])[0]
        by_group = self._model.cost_by_term_ms(_merged(terms[None, :], self._groups))[0]
        shares = dict.fromkeys(PARTS, 0.0)
        for group, cost in zip(self._groups, by_group, strict=True):
            work = terms[list(group)].sum()
            for term in group if work > 0 else ():
                share = float(cost * terms[term] / work / by_group.sum())
                shares[TERM_PARTS[TERM_NAMES[term]]] += share
        return shares

    def with_rows(self, rows: Sequence[LatencyRow]) -> LatencyPredictor:
        """Refitted with more rows."""
        return self._refitted([*self.rows, *rows])

    def rebased(self, session: LatencyRow) -> LatencyPredictor:
        """The same, its latencies now those of the session of this row: drift in scale alone."""
        size = session.batch_size, session.seq_len
        same = [row for row in self.rows if (row.batch_size, row.seq_len) == size]
        factor = anchors_ratio(session.anchors_ms, same[0].anchors_ms)
        rows = [
            replace(
                row,
                median_ms=row.median_ms * factor,
                p95_ms=row.p95_ms * factor,
                anchors_ms=tuple(ms * factor for ms in row.anchors_ms),
            )
            for row in self.rows
        ]
        return self._refitted(rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": PAYLOAD_VERSION,
            "key": self.key.to_dict(),
            "shape": self.shape.to_dict(),
            "macs_per_byte": self.macs_per_byte,
            "groups": [list(group) for group in self._groups],
            "rows": [row.to_dict() for row in self.rows],
            "model": self._model.to_json(),
            "sources": [source.to_json() for source in self.sources],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises: InvalidInput when the payload is of another version."""
        if data.get("version") != PAYLOAD_VERSION:
            raise InvalidInput(
                "predictor.version", f"is {data.get('version')}, {PAYLOAD_VERSION} is read here"
            )
        return cls(
            key=PredictorKey.from_dict(data["key"]),
            shape=ModelShape.from_dict(data["shape"]),
            rows=[LatencyRow.from_dict(row) for row in data["rows"]],
            macs_per_byte=data["macs_per_byte"],
            groups=tuple(tuple(group) for group in data["groups"]),
            model=CostModel.from_json(data["model"]),
            sources=[cls.from_json(source) for source in data["sources"]],
        )

    def _refitted(self, rows: Sequence[LatencyRow]) -> LatencyPredictor:
        return LatencyPredictor.fit(
            rows,
            key=self.key,
            shape=self.shape,
            macs_per_byte=self.macs_per_byte,
            sources=self.sources,
        )

    def _bound_ms(self, mean_ms: Floats, bound_ms: Floats, sign: int) -> Floats:
        log_width = log_half_width(mean_ms, bound_ms, self._spread, self._num_anchors)
        return np.asarray(mean_ms * np.exp(sign * log_width))

    def _terms(self, points: Sequence[NetworkPoint]) -> Floats:
        return latency_terms(
            self.shape, points, macs_per_byte=self.macs_per_byte, phase=self.key.phase
        )

    def _prediction(self, points: Sequence[NetworkPoint], terms: Floats) -> Prediction:
        return self._model.predict(
            _merged(terms, self._groups),
            details=latency_details(self.shape, points),
            sources=_source_ms(self.sources, points),
        )


def scaled_medians_ms(
    rows: Sequence[LatencyRow], normal: Mapping[tuple[int, int], tuple[float, ...]] | None = None
) -> Floats:
    """Medians as they would be in the first session at each size of input, or in `normal`."""
    known = dict(anchors_by_size(rows)) if normal is None else {**anchors_by_size(rows), **normal}
    return np.array(
        [
            row.median_ms * anchors_ratio(known[row.batch_size, row.seq_len], row.anchors_ms)
            for row in rows
        ]
    )


def anchors_by_size(rows: Sequence[LatencyRow]) -> dict[tuple[int, int], tuple[float, ...]]:
    """Of the first row at each batch size and sequence length."""
    found: dict[tuple[int, int], tuple[float, ...]] = {}
    for row in rows:
        found.setdefault((row.batch_size, row.seq_len), row.anchors_ms)
    return found


def anchors_ratio(wanted_ms: Sequence[float], given_ms: Sequence[float]) -> float:
    """How much slower the device was when `wanted_ms` was measured: the anchors' mean, in logs."""
    shared = min(len(wanted_ms), len(given_ms))
    logs = np.log(np.array(wanted_ms[:shared]) / np.array(given_ms[:shared]))
    return float(np.exp(logs.mean()))


def _merged(terms: Floats, groups: tuple[tuple[int, ...], ...]) -> Floats:
    return np.stack([terms[:, list(group)].sum(axis=1) for group in groups], axis=1)


def _source_ms(
    sources: Sequence[LatencyPredictor], points: Sequence[NetworkPoint]
) -> Floats | None:
    if not sources:
        return None
    return np.stack([source.predict(points).mean_ms for source in sources], axis=1)


def full_point(shape: ModelShape, precision: str, size: tuple[int, int]) -> NetworkPoint:
    """The unsearched model at a batch size and sequence length."""
    return NetworkPoint(
        subnet=SubnetConfig.full(shape, precision), batch_size=size[0], seq_len=size[1]
    )
