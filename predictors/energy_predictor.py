"""Energy of any network of a space on one device, from a few measured ones.

What costs time costs energy: the same terms with prices of their own. So this is the predictor of
latency, fitted to rows that hold millijoules where others hold milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from predictors.features import Floats
from predictors.rows import LatencyRow
from predictors.spec import MeasuringResult
from predictors.workload import Workload
from predictors.workload_predictor import WorkloadPredictor
from search.space import SubnetConfig


@dataclass(frozen=True, slots=True)
class EnergyPredictor:
    """Millijoules that a device's processor packages spend on one inference, all included.

    `fitted` was fitted to rows of energies: its milliseconds are millijoules.
    """

    fitted: WorkloadPredictor

    @property
    def precisions(self) -> tuple[str, ...]:
        return self.fitted.precisions

    @property
    def reference_mj(self) -> float:
        """Of the unsearched model in fp32."""
        return self.fitted.reference_ms

    def predict_mj(self, subnets: Sequence[SubnetConfig]) -> Floats:
        """Raises: InvalidInput: a precision was never measured."""
        return self.fitted.predict(subnets).mean_ms

    def to_json(self) -> dict[str, Any]:
        return self.fitted.to_json()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises: InvalidInput when the payload is of another version."""
        return cls(WorkloadPredictor.from_json(data))


def energy_rows_of(
    result: MeasuringResult, workload: Workload, prefix: str = ""
) -> list[LatencyRow]:
    """Rows of energies, as `rows_of` has them of latencies; none where none was measured.

    A network has one energy: that of a single run is too short to be read.
    """
    anchors_mj = [anchor.energy_mj for anchor in result.anchors]
    known_mj = tuple(energy_mj for energy_mj in anchors_mj if energy_mj is not None)
    if len(known_mj) < len(anchors_mj):
        return []
    return [
        LatencyRow(
            subnet=measurement.subnet,
            batch_size=workload.batch_size,
            seq_len=workload.seq_len,
            median_ms=measurement.energy_mj,
            p95_ms=measurement.energy_mj,
            anchors_ms=known_mj,
        )
        for measurement in result.measurements
        if measurement.key.startswith(prefix)
        and measurement.subnet is not None
        and measurement.energy_mj is not None
    ]


def energy_noise_floor(results: Sequence[MeasuringResult]) -> float:
    """Relative error of a typical network's energy; 0 where none was measured."""
    errors = [m.relative_energy_error for result in results for m in result.measurements]
    known = [error for error in errors if error is not None]
    return float(np.median(known)) if known else 0.0
