"""Raw times of one network, and what is derived from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from search.space import SubnetConfig

# Beyond this the rounds of one network tell different stories.
NOISY_SPREAD = 0.05

Samples = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Times of a network in each of its visits, with those of the reference beside them.

    `factors` says how slow the device was in each visit, 1 being the session's normal: derived
    figures are divided by it, raw samples stay as they were read.
    """

    key: str
    subnet: SubnetConfig | None
    rounds_ms: Samples
    reference_ms: Samples
    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.rounds_ms or not all(self.rounds_ms):
            raise ValueError(f"measurement {self.key!r} has a round without samples")
        if not len(self.rounds_ms) == len(self.reference_ms) == len(self.factors):
            raise ValueError(f"measurement {self.key!r} needs a reference and a factor each round")

    @property
    def raw_round_medians_ms(self) -> npt.NDArray[np.float64]:
        """As read, however slow the device was."""
        return np.array([np.median(samples) for samples in self.rounds_ms])

    @property
    def round_medians_ms(self) -> npt.NDArray[np.float64]:
        return self.raw_round_medians_ms / self.factors

    @property
    def raw_median_ms(self) -> float:
        return float(np.median(self.raw_round_medians_ms))

    @property
    def median_ms(self) -> float:
        """Median of the rounds' medians: half of the rounds may be disturbed."""
        return float(np.median(self.round_medians_ms))

    @property
    def p95_ms(self) -> float:
        """95th percentile of every single run."""
        pairs = zip(self.rounds_ms, self.factors, strict=True)
        return float(np.quantile(np.concatenate([np.array(s) / f for s, f in pairs]), 0.95))

    @property
    def spread(self) -> float:
        """Robust relative deviation between rounds."""
        return robust_deviation(self.round_medians_ms) / self.median_ms

    @property
    def relative_error(self) -> float:
        """Relative standard error of `median_ms`."""
        # A median of n normal values deviates sqrt(pi / 2) times as much as their mean.
        return 1.2533 * self.spread / math.sqrt(len(self.rounds_ms))

    @property
    def is_noisy(self) -> bool:
        return self.spread > NOISY_SPREAD

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "subnet": self.subnet.to_dict() if self.subnet else None,
            "rounds_ms": [list(samples) for samples in self.rounds_ms],
            "reference_ms": [list(samples) for samples in self.reference_ms],
            "factors": list(self.factors),
            "median_ms": self.median_ms,
            "p95_ms": self.p95_ms,
            "is_noisy": self.is_noisy,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From the raw part alone; derived figures are derived again."""
        return cls(
            key=data["key"],
            subnet=SubnetConfig.from_dict(data["subnet"]) if data["subnet"] else None,
            rounds_ms=tuple(tuple(samples) for samples in data["rounds_ms"]),
            reference_ms=tuple(tuple(samples) for samples in data["reference_ms"]),
            factors=tuple(data["factors"]),
        )


def robust_deviation(values: npt.ArrayLike) -> float:
    """The median absolute deviation, scaled to equal a normal's standard deviation."""
    array = np.asarray(values, dtype=np.float64)
    return float(1.4826 * np.median(np.abs(array - np.median(array))))
