"""One measured network, as a predictor is fitted to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from predictors.features import NetworkPoint
from predictors.measurement import Measurement
from predictors.spec import MeasuringResult
from predictors.workload import Workload
from search.space import SubnetConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyRow:
    """`anchors_ms` are its session's anchors, the unsearched model first: they relate sessions."""

    subnet: SubnetConfig
    batch_size: int
    seq_len: int
    median_ms: float
    p95_ms: float
    anchors_ms: tuple[float, ...]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.anchors_ms:
            raise ValueError("anchors_ms must not be empty")
        values = (self.median_ms, self.p95_ms, self.weight, *self.anchors_ms)
        if not all(np.isfinite(value) and value > 0 for value in values):
            raise ValueError(f"times and weight must be finite and above 0, got {values}")

    @property
    def reference_ms(self) -> float:
        """The unsearched model, in fp32, in the same session."""
        return self.anchors_ms[0]

    @property
    def point(self) -> NetworkPoint:
        return NetworkPoint(subnet=self.subnet, batch_size=self.batch_size, seq_len=self.seq_len)

    @classmethod
    def of(
        cls, measurement: Measurement, workload: Workload, anchors: Sequence[Measurement]
    ) -> Self:
        """Raises: ValueError when the measured network is not known as a subnet."""
        if measurement.subnet is None:
            raise ValueError(f"{measurement.key!r} was measured without its subnet")
        return cls(
            subnet=measurement.subnet,
            batch_size=workload.batch_size,
            seq_len=workload.seq_len,
            median_ms=measurement.median_ms,
            p95_ms=measurement.p95_ms,
            anchors_ms=tuple(anchor.median_ms for anchor in anchors),
        )

    def to_dict(self) -> dict[str, Any]:
        numbers = {
            k: getattr(self, k) for k in self.__slots__ if k not in ("subnet", "anchors_ms")
        }
        return {
            "subnet": self.subnet.to_dict(),
            "anchors_ms": list(self.anchors_ms),
            **numbers,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            **{
                **data,
                "subnet": SubnetConfig.from_dict(data["subnet"]),
                "anchors_ms": tuple(data["anchors_ms"]),
            }
        )


def rows_of(result: MeasuringResult, workload: Workload, prefix: str = "") -> list[LatencyRow]:
    """Rows of the networks whose key starts with `prefix` ("n" to fit on, "h" held out)."""
    return [
        LatencyRow.of(measurement, workload, result.anchors)
        for measurement in result.measurements
        if measurement.key.startswith(prefix) and measurement.subnet is not None
    ]
