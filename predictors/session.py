"""What a measuring session was, from the blocks that it timed to the figures that it yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from predictors.blocks import Anchors, Block, BlockRecord, Floats, session_factors
from predictors.measurement import Energies, Measurement, Samples, robust_deviation

# A network with this many clean rounds does without its disturbed ones.
MIN_CLEAN_ROUNDS = 3
NOISY_ERROR = 0.02
NOISY_SHARE = 0.25


@dataclass(slots=True)
class Log:
    """Blocks in the order of time, those thrown away among them."""

    started_s: float
    retries_left: int
    blocks: list[Block] = field(default_factory=list)
    discarded: set[int] = field(default_factory=set)  # places in `blocks`

    @property
    def kept(self) -> list[Block]:
        return [b for i, b in enumerate(self.blocks) if i not in self.discarded]

    def keep(self, block: Block) -> None:
        self.blocks.append(block)

    def discard(self, block: Block) -> None:
        self.discarded.add(len(self.blocks))
        self.blocks.append(block)

    def replace(self, block: Block, by: Block) -> None:
        place = next(i for i, known in enumerate(self.blocks) if known is block)
        self.discarded.add(place)
        self.blocks.append(by)

    def may_retry(self) -> bool:
        """Takes one try from the allowance; False when none is left."""
        self.retries_left -= 1
        return self.retries_left >= 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Everything measured under one normal; `measurements` in the order of the networks."""

    measurements: tuple[Measurement, ...]
    anchors: tuple[Measurement, ...]  # the reference first
    blocks: tuple[BlockRecord, ...]
    num_dropped_runs: int  # whose time could not be believed
    duration_s: float

    @property
    def reference(self) -> Measurement:
        return self.anchors[0]

    @property
    def num_blocks(self) -> int:
        """From which figures are derived."""
        return sum(block.kept for block in self.blocks)

    @property
    def num_discarded(self) -> int:
        return len(self.blocks) - self.num_blocks

    @property
    def num_disturbed(self) -> int:
        """Kept although the anchors were off: no quieter ones could be had."""
        return sum(block.kept and block.reason is not None for block in self.blocks)

    @property
    def noise_floor(self) -> float:
        """Relative error of a typical median: no predictor can be more exact than this."""
        return float(np.median([m.relative_error for m in self.measurements]))

    @property
    def drift(self) -> float:
        """Robust deviation of the device's speed between blocks, before it is removed."""
        return robust_deviation(np.log(self.reference.raw_round_medians_ms))

    @property
    def is_noisy(self) -> bool:
        """Whether it should be measured again: too inexact, or too often disturbed."""
        disturbed = self.num_disturbed > NOISY_SHARE * self.num_blocks
        return disturbed or self.noise_floor > NOISY_ERROR

    @classmethod
    def of(
        cls,
        log: Log,
        judge: Anchors,
        *,
        networks: Sequence[str],
        anchors: Sequence[str],
        num_dropped_runs: int,
        duration_s: float,
    ) -> Self:
        """Judges every block by the whole session's normal, and derives the measurements."""
        normal_ms = judge.normal_ms(log.kept)
        offsets = np.array([judge.offsets(b, normal_ms).mean() for b in log.blocks])
        faults = [judge.fault(block, normal_ms) for block in log.blocks]
        kept = [i for i in range(len(log.blocks)) if i not in log.discarded]
        factors = np.ones(len(log.blocks))
        factors[kept] = session_factors(offsets[kept], [log.blocks[i] for i in kept], networks)
        used = {key: _rounds_used(key, log, kept, faults) for key in networks}
        counted = sorted({i for places in used.values() for i in places})
        used |= dict.fromkeys(anchors, counted)

        def measurement(key: str) -> Measurement:
            return _measurement(key, anchors[0], log.blocks, used[key], factors)

        return cls(
            measurements=tuple(measurement(key) for key in networks),
            anchors=tuple(measurement(key) for key in anchors),
            blocks=tuple(
                _record(i, block, float(offsets[i]), faults[i], i in counted)
                for i, block in enumerate(log.blocks)
            ),
            num_dropped_runs=num_dropped_runs,
            duration_s=duration_s,
        )


def merge_sessions(sessions: Sequence[Session]) -> Session:
    """Groups of networks that were measured under one normal, as one session."""
    anchors = [
        replace(
            parts[0],
            rounds_ms=tuple(samples for part in parts for samples in part.rounds_ms),
            reference_ms=tuple(samples for part in parts for samples in part.reference_ms),
            factors=tuple(factor for part in parts for factor in part.factors),
            discarded_ms=tuple(samples for part in parts for samples in part.discarded_ms),
            rounds_mj=_merged_mj(parts),
        )
        for parts in zip(*(session.anchors for session in sessions), strict=True)
    ]
    blocks: list[BlockRecord] = []
    elapsed_s = 0.0
    for session in sessions:
        blocks += [block.moved(len(blocks), elapsed_s) for block in session.blocks]
        elapsed_s += session.duration_s
    return Session(
        measurements=tuple(m for session in sessions for m in session.measurements),
        anchors=tuple(anchors),
        blocks=tuple(blocks),
        num_dropped_runs=sum(session.num_dropped_runs for session in sessions),
        duration_s=elapsed_s,
    )


def _merged_mj(parts: Sequence[Measurement]) -> Energies:
    """Parallel to all rounds, if any part has energies."""
    if not any(part.rounds_mj for part in parts):
        return ()
    return tuple(mj for part in parts for mj in part.rounds_mj or (None,) * len(part.rounds_ms))


def keep_quietest(tries: Sequence[Session]) -> Session:
    """The quietest of several sessions of the same networks; raw samples of the others stay."""
    best = min(tries, key=lambda session: session.noise_floor)
    others = [session for session in tries if session is not best]
    blocks: list[BlockRecord] = []
    elapsed_s = 0.0
    for session in tries:
        moved = [block.moved(len(blocks), elapsed_s) for block in session.blocks]
        blocks += [replace(b, kept=b.kept and session is best) for b in moved]
        elapsed_s += session.duration_s
    return replace(
        best,
        measurements=_with_raw_of(best.measurements, [s.measurements for s in others]),
        anchors=_with_raw_of(best.anchors, [s.anchors for s in others]),
        blocks=tuple(blocks),
        num_dropped_runs=sum(session.num_dropped_runs for session in tries),
        duration_s=elapsed_s,
    )


def _with_raw_of(
    measurements: Sequence[Measurement], others: Sequence[Sequence[Measurement]]
) -> tuple[Measurement, ...]:
    found = []
    for i, measurement in enumerate(measurements):
        raw = measurement.discarded_ms
        for other in others:
            raw += other[i].rounds_ms + other[i].discarded_ms
        found.append(replace(measurement, discarded_ms=raw))
    return tuple(found)


def _rounds_used(
    key: str, log: Log, kept: Sequence[int], faults: Sequence[str | None]
) -> list[int]:
    """Places of the blocks that a network's figures come from: clean ones, if they are enough."""
    visited = [i for i in kept if key in log.blocks[i].samples_ms]
    clean = [i for i in visited if faults[i] is None]
    return clean if len(clean) >= MIN_CLEAN_ROUNDS else visited


def _measurement(
    key: str, reference: str, blocks: Sequence[Block], used: Sequence[int], factors: Floats
) -> Measurement:
    def samples(places: Sequence[int], of: str) -> Samples:
        return tuple(blocks[i].samples_ms[of] for i in places)

    energies_mj = tuple(blocks[i].energies_mj.get(key) for i in used)
    left_out = [i for i, b in enumerate(blocks) if key in b.samples_ms and i not in set(used)]
    return Measurement(
        key=key,
        subnet=None,
        rounds_ms=samples(used, key),
        reference_ms=samples(used, reference),
        factors=tuple(float(factors[i]) for i in used),
        discarded_ms=samples(left_out, key),
        rounds_mj=energies_mj if any(energies_mj) else (),
    )


def _record(
    index: int, block: Block, offset: float, reason: str | None, kept: bool
) -> BlockRecord:
    conditions = block.conditions or {}
    return BlockRecord(
        index=index,
        at_s=block.at_s,
        offset=offset,
        reason=reason,
        kept=kept,
        load=conditions.get("load"),
        steal_s=conditions.get("steal_s"),
        frequency_mhz=conditions.get("frequency_mhz"),
    )
