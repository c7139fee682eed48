"""The predictors of one device at one workload, one for each precision, asked as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from predictors.features import Floats, NetworkPoint, points_of
from predictors.key import PredictorKey
from predictors.predictor import (
    LatencyEstimate,
    LatencyPredictor,
    Statistic,
    anchors_by_size,
    full_point,
)
from predictors.rows import LatencyRow
from predictors.workload import Workload
from search.errors import InvalidInput
from search.shape import ModelShape
from search.space import SubnetConfig

PAYLOAD_VERSION = 1


class WorkloadPredictor:
    """What a search asks: it chooses the precision of a network with its architecture."""

    def __init__(self, workload: Workload, predictors: Sequence[LatencyPredictor]) -> None:
        if not predictors:
            raise ValueError("at least one predictor is needed")
        self.workload = workload
        self._predictors = {predictor.key.precision: predictor for predictor in predictors}

    @classmethod
    def fit(
        cls,
        rows: Sequence[LatencyRow],
        *,
        keys: Mapping[str, PredictorKey],
        shape: ModelShape,
        workload: Workload,
        macs_per_byte: Mapping[str, float],
        sources: Mapping[str, Sequence[LatencyPredictor]] | None = None,
        seed: int = 0,
    ) -> Self:
        """One predictor for each of `keys`, whose keys are precisions.

        Raises:
            InvalidInput: a precision has too few rows.
        """
        predictors = [
            LatencyPredictor.fit(
                [row for row in rows if row.subnet.precision == precision],
                key=key,
                shape=shape,
                macs_per_byte=macs_per_byte[precision],
                sources=(sources or {}).get(precision, ()),
                seed=seed,
            )
            for precision, key in keys.items()
        ]
        return cls(workload, predictors)

    @property
    def shape(self) -> ModelShape:
        return next(iter(self._predictors.values())).shape

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(self._predictors)

    @property
    def predictors(self) -> Mapping[str, LatencyPredictor]:
        """By precision."""
        return dict(self._predictors)

    @property
    def rows(self) -> tuple[LatencyRow, ...]:
        """Of all precisions, one after the other."""
        return tuple(row for predictor in self._predictors.values() for row in predictor.rows)

    @property
    def num_outliers(self) -> int:
        return sum(predictor.num_outliers for predictor in self._predictors.values())

    @property
    def reference_ms(self) -> float:
        """Latency of the unsearched model in fp32, in the session that predictions refer to."""
        size = self.workload.batch_size, self.workload.seq_len
        for predictor in self._predictors.values():
            anchors = anchors_by_size(predictor.rows).get(size)
            if anchors is not None:
                return anchors[0]
        if "fp32" not in self._predictors:
            raise InvalidInput(
                "budget_ratio", "this workload was never measured; give budget_ms instead"
            )
        estimate = self._predictors["fp32"].predict([full_point(self.shape, "fp32", size)])
        return float(estimate.mean_ms[0])

    def predict(
        self, subnets: Sequence[SubnetConfig], statistic: Statistic = "p50"
    ) -> LatencyEstimate:
        """Networks of mixed precision are predicted from those of one, see `_predict_mixed`.

        Raises:
            InvalidInput: a precision was never measured.
        """
        size = len(subnets)
        estimate = LatencyEstimate(
            mean_ms=np.empty(size),
            lower_ms=np.empty(size),
            upper_ms=np.empty(size),
            extrapolates=np.empty(size, dtype=np.bool_),
        )
        kinds = [(subnet.precision, bool(subnet.float_layers)) for subnet in subnets]
        for precision, is_mixed in dict.fromkeys(kinds):
            where = np.array([kind == (precision, is_mixed) for kind in kinds])
            alike = [subnet for subnet, is_own in zip(subnets, where, strict=True) if is_own]
            if is_mixed:
                part = self._predict_mixed(alike, statistic)
            else:
                part = self._predictor(precision).predict(self._points(alike), statistic)
            for name in ("mean_ms", "lower_ms", "upper_ms", "extrapolates"):
                getattr(estimate, name)[where] = getattr(part, name)
        return estimate

    def _predict_mixed(
        self, subnets: Sequence[SubnetConfig], statistic: Statistic
    ) -> LatencyEstimate:
        """int8 networks some of whose layers stay in fp32: what these layers cost is added.

        Runtimes quantize matrix by matrix, so that latencies add up by layer: the layers in int8
        alone, and what the others add to an fp32 network of the same layers. As uncertain as the
        less certain of both precisions.
        """
        floats = [s.with_precision("fp32") for s in subnets]
        rest = [s.keeping([la for la in s.layers if la not in s.float_layers]) for s in subnets]
        some = [subnet if subnet.layers else None for subnet in rest]
        whole = self._predictor("fp32").predict(self._points(floats), statistic)
        mean_ms = whole.mean_ms.copy()
        widths = [np.log(whole.mean_ms / whole.lower_ms), np.log(whole.upper_ms / whole.mean_ms)]
        extrapolates = whole.extrapolates.copy()
        where = np.array([subnet is not None for subnet in some], dtype=np.bool_)
        points = self._points([subnet for subnet in some if subnet is not None])
        if points:
            int8 = self._predictor("int8").predict(points, statistic)
            float_ms = self._predictor("fp32").predict(points, statistic).mean_ms
            # Never below the layers in int8 alone, whatever the two predictors disagree about.
            mean_ms[where] = np.maximum(mean_ms[where] + int8.mean_ms - float_ms, int8.mean_ms)
            extrapolates[where] |= int8.extrapolates
            for width, bound in zip(
                widths, (int8.mean_ms / int8.lower_ms, int8.upper_ms / int8.mean_ms), strict=True
            ):
                width[where] = np.maximum(width[where], np.log(bound))
        return LatencyEstimate(
            mean_ms=mean_ms,
            lower_ms=mean_ms * np.exp(-widths[0]),
            upper_ms=mean_ms * np.exp(widths[1]),
            extrapolates=extrapolates,
        )

    def cross_validated_ms(self) -> Floats:
        """Prediction of each of `rows` by a model that was fitted without it."""
        return np.concatenate([p.cross_validated_ms() for p in self._predictors.values()])

    def measured_ms(self, rows: Sequence[LatencyRow]) -> Floats:
        """Medians as they would be in the session that predictions refer to."""
        measured = np.empty(len(rows))
        for precision, predictor in self._predictors.items():
            where = np.array([row.subnet.precision == precision for row in rows], dtype=np.bool_)
            measured[where] = predictor.measured_ms(
                [r for r in rows if r.subnet.precision == precision]
            )
        return measured

    def explain(self, subnet: SubnetConfig) -> dict[str, float]:
        """Share of the predicted latency by part; the shares sum to 1."""
        return self._predictor(subnet.precision).explain(self._points([subnet])[0])

    def with_measurements(self, rows: Sequence[LatencyRow], *, weight: float = 4.0) -> Self:
        """Refitted with more rows, which count `weight` times: they lie where it matters.

        Rows of mixed precision teach neither predictor: they would blame one for both.
        """
        pure = [row for row in rows if not row.subnet.float_layers]
        more = [replace(row, weight=row.weight * weight) for row in pure]
        predictors = []
        for precision, predictor in self._predictors.items():
            added = [row for row in more if row.subnet.precision == precision]
            predictors.append(predictor.with_rows(added) if added else predictor)
        return type(self)(self.workload, predictors)

    def rebased(self, session: LatencyRow) -> Self:
        """The same, its latencies now those of the session of this row: drift in scale alone."""
        return type(self)(self.workload, [p.rebased(session) for p in self._predictors.values()])

    def to_json(self) -> dict[str, Any]:
        return {
            "version": PAYLOAD_VERSION,
            "workload": self.workload.to_dict(),
            "predictors": [predictor.to_json() for predictor in self._predictors.values()],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises: InvalidInput when the payload is of another version."""
        if data.get("version") != PAYLOAD_VERSION or "predictors" not in data:
            raise InvalidInput("predictor.version", f"is {data.get('version')}, not readable here")
        return cls(
            Workload.from_dict(data["workload"]),
            [LatencyPredictor.from_json(predictor) for predictor in data["predictors"]],
        )

    def _points(self, subnets: Sequence[SubnetConfig]) -> list[NetworkPoint]:
        return points_of(
            subnets, batch_size=self.workload.batch_size, seq_len=self.workload.seq_len
        )

    def _predictor(self, precision: str) -> LatencyPredictor:
        if precision not in self._predictors:
            known = ", ".join(self._predictors)
            raise InvalidInput(
                "precision", f"no network was measured in {precision}, only {known}"
            )
        return self._predictors[precision]
