"""The measuring protocol: times that can be compared although the machine is never quiet.

Networks are visited in shuffled rounds, in blocks that each hold the anchors too: networks that
never change. How slow the anchors are in a block, against their normal in the session, is how slow
the device was just then. A block in which they are far off is tried again, a few times; then its
samples are kept and marked. Raw samples are kept always, so nothing is ever left without a time.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from predictors.measurement import Measurement, Samples, robust_deviation
from search.errors import SnugnetError

BLOCK_SIZE = 8
MAX_OFFSET = 0.05  # of an anchor from its normal, in a block that passes
MAX_SAMPLE_DEVIATION = 0.04  # of the reference's runs inside a block that passes
RETRIES_PER_ROUND = 2
PAUSE_S = 0.2  # before a disturbed block is tried again
MIN_WARMUP_RUNS = 3
MAX_WARMUP_RUNS = 10
WARMUP_TOLERANCE = 0.02
TARGET_ERROR = 0.01
EXTRA_ROUNDS = 4
NOISY_ERROR = 0.02
NOISY_SHARE = 0.25

# With fewer runs at either end of a block, a single hiccup could spoil an anchor.
MIN_ANCHOR_REPEATS = 3


class Runnable(Protocol):
    def run(self) -> None: ...


class MeasuringAborted(SnugnetError):
    """The caller asked to stop: the lease is lost or the process shuts down."""

    code = "measuring_aborted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Everything measured under one normal; `measurements` in the order of the networks."""

    measurements: tuple[Measurement, ...]
    anchors: tuple[Measurement, ...]  # the reference first
    num_blocks: int
    num_retried: int
    num_disturbed: int  # kept although the anchors were off
    duration_s: float

    @property
    def reference(self) -> Measurement:
        return self.anchors[0]

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


def merge_sessions(sessions: Sequence[Session]) -> Session:
    """Groups of networks that were measured under one normal, as one session."""
    anchors = [
        Measurement(
            key=parts[0].key,
            subnet=parts[0].subnet,
            rounds_ms=tuple(samples for part in parts for samples in part.rounds_ms),
            reference_ms=tuple(samples for part in parts for samples in part.reference_ms),
            factors=tuple(factor for part in parts for factor in part.factors),
        )
        for parts in zip(*(session.anchors for session in sessions), strict=True)
    ]
    return Session(
        measurements=tuple(m for session in sessions for m in session.measurements),
        anchors=tuple(anchors),
        num_blocks=sum(session.num_blocks for session in sessions),
        num_retried=sum(session.num_retried for session in sessions),
        num_disturbed=sum(session.num_disturbed for session in sessions),
        duration_s=sum(session.duration_s for session in sessions),
    )


@dataclass(frozen=True, slots=True)
class _Block:
    """One visit to a few networks and all anchors."""

    samples_ms: Mapping[str, tuple[float, ...]]

    def median_ms(self, key: str) -> float:
        return float(np.median(self.samples_ms[key]))


@dataclass(slots=True)
class _Log:
    """Blocks so far and how many of them went wrong."""

    blocks: list[_Block] = field(default_factory=list)
    num_retried: int = 0
    num_disturbed: int = 0

    def round_medians_ms(self, key: str) -> npt.NDArray[np.float64]:
        return np.array([b.median_ms(key) for b in self.blocks if key in b.samples_ms])


class Measurer:
    """Visits networks by the protocol. `anchors` holds the reference first, then others.

    Args:
        normal_ms: the anchors' normals where another session with the same anchors set them.
        should_abort: asked before every visit.
        clock: seconds; tests pass their own, and `sleep` with it.
    """

    def __init__(
        self,
        anchors: Mapping[str, Runnable],
        *,
        repeats: int,
        seed: int,
        normal_ms: Mapping[str, float] | None = None,
        should_abort: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not anchors:
            raise ValueError("at least one anchor is needed")
        self._anchors = dict(anchors)
        self._normal_ms = dict(normal_ms) if normal_ms else None
        self._repeats = repeats
        self._rng = random.Random(seed)
        self._should_abort = should_abort
        self._clock = clock
        self._sleep = sleep

    @staticmethod
    def check(should_abort: Callable[[], bool]) -> None:
        """Raises: MeasuringAborted when `should_abort` says so."""
        if should_abort():
            raise MeasuringAborted("asked to stop measuring")

    def measure(self, networks: Mapping[str, Runnable], *, rounds: int) -> Session:
        """Raises: MeasuringAborted when `should_abort` says so."""
        if clash := set(networks) & set(self._anchors):
            raise ValueError(f"networks are named as anchors: {sorted(clash)}")
        started = self._clock()
        for network in (*self._anchors.values(), *networks.values()):
            self._warm_up(network)
        log = _Log()
        for _ in range(rounds):
            self._visit(networks, log)
        for _ in range(EXTRA_ROUNDS):
            inexact = {k: n for k, n in networks.items() if self._is_inexact(k, log)}
            if not inexact:
                break
            self._visit(inexact, log)
        return self._session(networks, log, self._clock() - started)

    def _visit(self, networks: Mapping[str, Runnable], log: _Log) -> None:
        """One round: every network once, in blocks, in an order of its own."""
        keys = list(networks)
        self._rng.shuffle(keys)
        retries_left = RETRIES_PER_ROUND
        for start in range(0, len(keys), BLOCK_SIZE):
            members = {key: networks[key] for key in keys[start : start + BLOCK_SIZE]}
            block = self._time_block(members)
            while self._is_disturbed(block, log) and retries_left:
                retries_left -= 1
                log.num_retried += 1
                self._sleep(PAUSE_S)
                block = self._time_block(members)
            log.num_disturbed += self._is_disturbed(block, log)
            log.blocks.append(block)

    def _time_block(self, members: Mapping[str, Runnable]) -> _Block:
        """Anchors first and last: what disturbs the networks between shows in one or the other."""
        networks = list(members.items())
        self._rng.shuffle(networks)
        anchors = list(self._anchors.items())
        samples: dict[str, tuple[float, ...]] = {}
        for key, network in (*anchors, *networks, *anchors):
            self.check(self._should_abort)
            repeats = self._repeats
            if key in self._anchors:
                repeats = max(-(-repeats // 2), MIN_ANCHOR_REPEATS)
            # What ran before has filled the caches with other weights.
            network.run()
            times = tuple(self._time_ms(network) for _ in range(repeats))
            samples[key] = samples.get(key, ()) + times
        return _Block(samples)

    def _is_disturbed(self, block: _Block, log: _Log) -> bool:
        reference = next(iter(self._anchors))
        samples = np.array(block.samples_ms[reference])
        if robust_deviation(samples) > MAX_SAMPLE_DEVIATION * np.median(samples):
            return True
        offsets = [
            np.log(block.median_ms(key) / self._normal(key, [*log.blocks, block]))
            for key in self._anchors
        ]
        return bool(np.abs(offsets).max() > MAX_OFFSET)

    def _normal(self, anchor: str, blocks: Sequence[_Block]) -> float:
        if self._normal_ms is not None:
            return self._normal_ms[anchor]
        return float(np.median([block.median_ms(anchor) for block in blocks]))

    def _is_inexact(self, key: str, log: _Log) -> bool:
        medians = log.round_medians_ms(key)
        error = 1.2533 * robust_deviation(medians) / math.sqrt(len(medians))
        return bool(error > TARGET_ERROR * np.median(medians))

    def _warm_up(self, network: Runnable) -> None:
        """Until the last three runs agree: first runs allocate, and read weights from memory."""
        times: list[float] = []
        for _ in range(MAX_WARMUP_RUNS):
            times.append(self._time_ms(network))
            last = times[-MIN_WARMUP_RUNS:]
            agree = max(last) - min(last) <= WARMUP_TOLERANCE * min(last)
            if len(times) >= MIN_WARMUP_RUNS and agree:
                return

    def _time_ms(self, network: Runnable) -> float:
        start = self._clock()
        network.run()
        return (self._clock() - start) * 1e3

    def _session(self, networks: Mapping[str, Runnable], log: _Log, duration_s: float) -> Session:
        factors = self._factors(log, networks)
        reference = next(iter(self._anchors))

        def measurement(key: str) -> Measurement:
            visits = [i for i, block in enumerate(log.blocks) if key in block.samples_ms]
            rounds: Samples = tuple(log.blocks[i].samples_ms[key] for i in visits)
            return Measurement(
                key=key,
                subnet=None,
                rounds_ms=rounds,
                reference_ms=tuple(log.blocks[i].samples_ms[reference] for i in visits),
                factors=tuple(float(factors[i]) for i in visits),
            )

        return Session(
            measurements=tuple(measurement(key) for key in networks),
            anchors=tuple(measurement(key) for key in self._anchors),
            num_blocks=len(log.blocks),
            num_retried=log.num_retried,
            num_disturbed=log.num_disturbed,
            duration_s=duration_s,
        )

    def _factors(self, log: _Log, networks: Iterable[str]) -> npt.NDArray[np.float64]:
        """How slow the device was in each block, 1 being normal: the anchors' mean offset.

        It counts as far as the networks share it, as their own rounds show. Slow drift they share
        wholly; of hiccups shorter than a block they share next to nothing, and there dividing by
        the anchors would only add noise (on a machine busy with training it made a predictor's
        error 2.1 % instead of 1.7 %).
        """
        offsets = np.array(
            [
                np.mean(
                    [np.log(b.median_ms(k) / self._normal(k, log.blocks)) for k in self._anchors]
                )
                for b in log.blocks
            ]
        )
        visits = [
            [(i, b.median_ms(key)) for i, b in enumerate(log.blocks) if key in b.samples_ms]
            for key in networks
        ]
        shared = shared_part(
            [(offsets[[i for i, _ in v]], np.log([ms for _, ms in v])) for v in visits]
        )
        return np.asarray(np.exp(shared * offsets), dtype=np.float64)


def shared_part(
    rounds: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
) -> float:
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
