"""Blocks of a measuring session: what was timed together, and how slow the device was just then.

A block holds a few networks and all anchors: networks that never change. How far the anchors are
from their normal, the median over the session's blocks, says how slow the device was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from predictors.fields import Fields
from predictors.measurement import robust_deviation

MAX_OFFSET = 0.05  # of an anchor from its normal, in a block that passes
MAX_SAMPLE_DEVIATION = 0.04  # of the reference's runs inside a block that passes

Floats = npt.NDArray[np.float64]
Conditions = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One visit to a few networks and all anchors; `samples_ms` by key.

    Attributes:
        at_s: when it began, from the session's start.
        conditions: load, steal time during the block and frequency, where the system tells.
        energies_mj: of one run, by key, where energy can be measured.
    """

    samples_ms: Mapping[str, tuple[float, ...]]
    at_s: float = 0.0
    conditions: Conditions | None = None
    energies_mj: Mapping[str, float | None] = field(default_factory=dict)

    def median_ms(self, key: str) -> float:
        return float(np.median(self.samples_ms[key]))


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockRecord:
    """What a report says of a block.

    Attributes:
        index: in the order of time, thrown-away blocks included.
        offset: mean log-distance of the anchors from their normals; 0.05 is 5 % slow.
        reason: why it counts as disturbed; None when it does not.
        kept: whether any figure is derived from it.
    """

    index: int
    at_s: float
    offset: float
    reason: str | None
    kept: bool
    load: float | None = None
    steal_s: float | None = None
    frequency_mhz: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object, path: str) -> Self:
        fields = Fields(data, path)
        return cls(
            index=fields.integer("index", 0),
            at_s=fields.number("at_s"),
            offset=fields.number("offset"),
            reason=fields.text("reason") if fields.has("reason") else None,
            kept=fields.flag("kept", True),
            load=_optional(fields, "load"),
            steal_s=_optional(fields, "steal_s"),
            frequency_mhz=_optional(fields, "frequency_mhz"),
        )

    def moved(self, index: int, at_s: float) -> Self:
        """The same block as a part of a longer session."""
        return replace(self, index=self.index + index, at_s=self.at_s + at_s)


class Anchors:
    """Judges blocks by their anchors, whose keys are given, the reference first."""

    def __init__(self, keys: Sequence[str], normal_ms: Mapping[str, float] | None = None) -> None:
        self._keys = tuple(keys)
        self._given_ms = normal_ms

    @property
    def has_normal(self) -> bool:
        """Whether another session has set the normals."""
        return self._given_ms is not None

    def normal_ms(self, blocks: Sequence[Block]) -> dict[str, float]:
        """Given by another session, or the medians over `blocks`."""
        if self._given_ms is not None:
            return dict(self._given_ms)
        return {k: float(np.median([b.median_ms(k) for b in blocks])) for k in self._keys}

    def offsets(self, block: Block, normal_ms: Mapping[str, float]) -> Floats:
        """Log-distance of each anchor from its normal."""
        ratios = [block.median_ms(key) / normal_ms[key] for key in self._keys]
        return np.asarray(np.log(ratios), dtype=np.float64)

    def fault(self, block: Block, normal_ms: Mapping[str, float]) -> str | None:
        """Why a block's samples should not be believed; None where they should."""
        offsets = self.offsets(block, normal_ms)
        worst = int(np.abs(offsets).argmax())
        if abs(offsets[worst]) > MAX_OFFSET:
            return f"{self._keys[worst]} moved by {np.expm1(offsets[worst]):+.0%}"
        reference = np.array(block.samples_ms[self._keys[0]])
        spread = robust_deviation(reference) / float(np.median(reference))
        if spread > MAX_SAMPLE_DEVIATION:
            return f"runs of {self._keys[0]} differ by {spread:.0%}"
        return None


def session_factors(offsets: Floats, blocks: Sequence[Block], networks: Iterable[str]) -> Floats:
    """How slow the device was in each block, 1 being normal, from the anchors' mean `offsets`.

    They count as far as the networks share them, as their own rounds show. Slow drift they share
    wholly; of hiccups shorter than a block they share next to nothing, and there dividing by the
    anchors would only add noise (on a machine busy with training it made a predictor's error
    2.1 % instead of 1.7 %).
    """
    visits = [
        [(i, b.median_ms(key)) for i, b in enumerate(blocks) if key in b.samples_ms]
        for key in networks
    ]
    shared = shared_part(
        [(offsets[[i for i, _ in v]], np.log([ms for _, ms in v])) for v in visits if v]
    )
    return np.asarray(np.exp(shared * offsets), dtype=np.float64)


def shared_part(rounds: Sequence[tuple[Floats, Floats]]) -> float:
    """Share of the anchors' offsets, 0 to 1, whose removal makes networks' rounds agree best.

    `rounds` holds, for each network, the offsets and its own log medians in the same blocks.
    """

    def disagreement(share: float) -> float:
        total = 0.0
        for offsets, logs in rounds:
            left = logs - share * offsets
            total += float(np.abs(left - np.median(left)).sum())
        return total

    return float(min(np.linspace(0, 1, 21), key=disagreement))


def _optional(fields: Fields, name: str) -> float | None:
    return fields.number(name) if fields.has(name) else None
