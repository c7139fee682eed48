"""Raw times of one network, and what is derived from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from predictors.fields import Fields, as_items, as_number
from predictors.intervals import Interval, median_interval, quantile_interval
from search.errors import InvalidInput
from search.space import SubnetConfig

# Beyond this the rounds of one network tell different stories.
NOISY_SPREAD = 0.05

MAX_RUN_MS = 3_600_000.0  # a single pass of an hour is a broken clock
MAX_RUN_MJ = 1e10  # a single pass of an hour at almost 3 kW
MAX_ROUNDS = 1000
MAX_RUNS_PER_ROUND = 10_000
MAX_FACTOR = 100.0

Samples = tuple[tuple[float, ...], ...]
Energies = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Times of a network in each of its visits, with those of the reference beside them.

    `factors` says how slow the device was in each visit, 1 being the session's normal: derived
    figures are divided by it, raw samples stay as they were read. `discarded_ms` are samples of
    visits that were thrown away because the anchors had moved; no figure is derived from them.
    `rounds_mj` has the energy of one run in each visit, of the whole processor package and as it
    was read, None where a reading failed; it is empty where the device cannot measure energy.
    """

    key: str
    subnet: SubnetConfig | None
    rounds_ms: Samples
    reference_ms: Samples
    factors: tuple[float, ...]
    discarded_ms: Samples = ()
    rounds_mj: Energies = ()

    def __post_init__(self) -> None:
        if not self.rounds_ms or not all(self.rounds_ms):
            raise ValueError(f"measurement {self.key!r} has a round without samples")
        if not len(self.rounds_ms) == len(self.reference_ms) == len(self.factors):
            raise ValueError(f"measurement {self.key!r} needs a reference and a factor each round")
        if self.rounds_mj and len(self.rounds_mj) != len(self.rounds_ms):
            raise ValueError(f"measurement {self.key!r} needs an energy each round, or none")

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
        return float(np.quantile(np.concatenate(self._scaled_ms), 0.95))

    @property
    def median_interval_ms(self) -> Interval | None:
        """90 % interval of `median_ms`; None of a single run."""
        if len(self.rounds_ms) > 1:
            return median_interval(self.round_medians_ms)
        return median_interval(self._scaled_ms[0])

    @property
    def p95_interval_ms(self) -> Interval | None:
        """90 % interval of `p95_ms`; None of a single run."""
        return quantile_interval(self._scaled_ms, 0.95)

    @property
    def energy_mj(self) -> float | None:
        """Median of the rounds' energies of one run; None where none was measured."""
        known_mj = self._known_mj
        return float(np.median(known_mj)) if known_mj else None

    @property
    def spread(self) -> float:
        """Robust relative deviation between rounds."""
        return robust_deviation(self.round_medians_ms) / self.median_ms

    @property
    def relative_error(self) -> float:
        """Relative standard error of `median_ms`."""
        return relative_error_of_median(self.round_medians_ms)

    @property
    def relative_energy_error(self) -> float | None:
        """Relative standard error of `energy_mj`."""
        return relative_error_of_median(self._known_mj) if self._known_mj else None

    @property
    def is_noisy(self) -> bool:
        return self.spread > NOISY_SPREAD

    @property
    def _known_mj(self) -> list[float]:
        return [energy_mj for energy_mj in self.rounds_mj if energy_mj is not None]

    @property
    def _scaled_ms(self) -> list[npt.NDArray[np.float64]]:
        pairs = zip(self.rounds_ms, self.factors, strict=True)
        return [np.array(samples) / factor for samples, factor in pairs]

    def to_dict(self) -> dict[str, Any]:
        p50, p95 = self.median_interval_ms, self.p95_interval_ms
        return {
            "key": self.key,
            "subnet": self.subnet.to_dict() if self.subnet else None,
            "rounds_ms": [list(samples) for samples in self.rounds_ms],
            "reference_ms": [list(samples) for samples in self.reference_ms],
            "factors": list(self.factors),
            "discarded_ms": [list(samples) for samples in self.discarded_ms],
            "rounds_mj": list(self.rounds_mj) or None,
            "median_ms": self.median_ms,
            "median_interval_ms": list(p50) if p50 else None,
            "p95_ms": self.p95_ms,
            "p95_interval_ms": list(p95) if p95 else None,
            "energy_mj": self.energy_mj,
            "is_noisy": self.is_noisy,
        }

    @classmethod
    def from_dict(cls, data: object, path: str = "measurement") -> Self:
        """From the raw part alone; derived figures are derived again.

        Raises:
            InvalidInput: naming a sample that is no time (NaN, negative, zero, above an hour) or
                no energy, a round without samples, or a key that is missing.
        """
        fields = Fields(data, path)
        rounds_ms = fields.items("rounds_ms", _as_round)
        found = cls(
            key=fields.text("key"),
            subnet=as_subnet(fields.value("subnet"), fields.at("subnet"))
            if fields.has("subnet")
            else None,
            rounds_ms=_bounded(rounds_ms, fields.at("rounds_ms"), MAX_ROUNDS),
            reference_ms=_parallel(fields.items("reference_ms", _as_round), rounds_ms, fields),
            factors=_parallel(fields.items("factors", _as_factor), rounds_ms, fields),
            discarded_ms=fields.items("discarded_ms", _as_round, default=()),
            rounds_mj=_energies(fields, len(rounds_ms)),
        )
        return found


def robust_deviation(values: npt.ArrayLike) -> float:
    """The median absolute deviation, scaled to equal a normal's standard deviation."""
    array = np.asarray(values, dtype=np.float64)
    return float(1.4826 * np.median(np.abs(array - np.median(array))))


def relative_error_of_median(rounds: npt.ArrayLike) -> float:
    """Relative standard error of the median of several rounds."""
    array = np.asarray(rounds, dtype=np.float64)
    # A median of n normal values deviates sqrt(pi / 2) times as much as their mean.
    return 1.2533 * robust_deviation(array) / float(np.median(array)) / math.sqrt(array.size)


def as_subnet(value: object, path: str) -> SubnetConfig:
    """Raises: InvalidInput when it is no subnet of any shape."""
    if not isinstance(value, Mapping):
        raise InvalidInput(path, "must be an object")
    try:
        data: dict[str, Any] = {
            name: _ints(value, name, path) for name in ("layers", "num_heads", "ffn_dim")
        }
        data["precision"] = Fields(value, path).text("precision")
        if "float_layers" in value:
            data["float_layers"] = _ints(value, "float_layers", path)
        if value.get("embed_dim") is not None:
            data["embed_dim"] = Fields(value, path).integer("embed_dim", 1)
        return SubnetConfig.from_dict(data)
    except ValueError as error:
        raise InvalidInput(path, str(error)) from None


def _ints(value: Mapping[str, Any], name: str, path: str) -> tuple[int, ...]:
    def as_width(item: object, at: str) -> int:
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise InvalidInput(at, f"must be a whole number of at least 0: {item!r}"[:200])
        return item

    return Fields(value, path).items(name, as_width)


def _as_round(value: object, path: str) -> tuple[float, ...]:
    samples = as_items(value, path, _as_run_ms)
    if not samples:
        raise InvalidInput(path, "is a round without samples")
    return _bounded(samples, path, MAX_RUNS_PER_ROUND)


def _as_run_ms(value: object, path: str) -> float:
    run_ms = as_number(value, path, 0.0, MAX_RUN_MS)
    if run_ms == 0.0:
        raise InvalidInput(path, "no run takes 0 ms")
    return run_ms


def _as_factor(value: object, path: str) -> float:
    return as_number(value, path, 1 / MAX_FACTOR, MAX_FACTOR)


def _energies(fields: Fields, num_rounds: int) -> Energies:
    """None at all where an agent does not know of energy, or cannot measure it."""
    energies_mj = fields.items("rounds_mj", _as_energy, default=())
    if energies_mj and len(energies_mj) != num_rounds:
        raise InvalidInput(
            fields.at("rounds_mj"), f"has {len(energies_mj)} energies for {num_rounds} rounds"
        )
    return energies_mj


def _as_energy(value: object, path: str) -> float | None:
    if value is None:
        return None
    energy_mj = as_number(value, path, 0.0, MAX_RUN_MJ)
    if energy_mj == 0.0:
        raise InvalidInput(path, "no run spends 0 mJ")
    return energy_mj


def _bounded(items: tuple[Any, ...], path: str, highest: int) -> tuple[Any, ...]:
    if not items:
        raise InvalidInput(path, "must not be empty")
    if len(items) > highest:
        raise InvalidInput(path, f"has {len(items)} items, more than {highest}")
    return items


def _parallel(items: tuple[Any, ...], rounds_ms: Samples, fields: Fields) -> tuple[Any, ...]:
    if len(items) != len(rounds_ms):
        raise InvalidInput(
            fields.path, f"has {len(rounds_ms)} rounds, but {len(items)} references or factors"
        )
    return items
