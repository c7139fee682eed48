"""The measuring protocol: times that can be compared although the machine is never quiet.

Networks are visited in shuffled rounds, in blocks that each hold the anchors too. A block whose
anchors moved is thrown away and tried again, up to a cap; how far they moved in the others is
divided out. Raw samples are kept always, so nothing is ever left without a time.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import numpy as np

from predictors.blocks import Anchors, Block, Conditions
from predictors.energy import EnergyCounter, Visit, mean_mj, runs_to_add
from predictors.measurement import MAX_RUN_MS, robust_deviation
from predictors.session import MIN_CLEAN_ROUNDS, Log, Session
from search.errors import SnugnetError

# Networks of a block: as many as run in about this time, so that it is over before the machine
# changes; or in a multiple of the time that its anchors take, where those are slow.
BLOCK_S = 1.0
BLOCK_PER_ANCHORS = 3.0
MIN_BLOCK_SIZE = 4
MAX_BLOCK_SIZE = 16
RETRIES_PER_BLOCK = 3
MIN_RETRIES = 4  # of a session; else as many as it has blocks, so that at most its time doubles
PAUSE_S = 0.2  # before a disturbed block is tried again; doubled for each further try

SETTLED_BLOCKS = 3  # from which an anchor's normal is known well enough to judge others by

MIN_WARMUP_RUNS = 3
MAX_WARMUP_RUNS = 20
MAX_WARMUP_S = 3.0
WARMUP_TOLERANCE = 0.02

MODERATE_MS = 12.0  # a network of this time runs `repeats` times a visit
MOST_REPEATS = 4  # times `repeats`, of very fast networks
# With fewer runs at either end of a block, a single hiccup could spoil an anchor.
MIN_ANCHOR_REPEATS = 2
# Above this, what ran before makes a first run less than 1 % slower (measured on MiniLM in all
# three runtimes), and a single run outlasts a hiccup.
SLOW_MS = 40.0

TARGET_ERROR = 0.01
EXTRA_ROUNDS = 4

# A run this much longer than a usual one is a clock that jumped or a machine that was suspended.
ABSURD_FACTOR = 50.0
ABSURD_MS = 1000.0
MAX_ABSURD_RUNS = 5


class Runnable(Protocol):
    """A loaded network. `run` is one forward pass and returns once its result is there."""

    def run(self) -> None: ...


class MeasuringAborted(SnugnetError):
    """The caller asked to stop: the lease is lost or the process shuts down."""

    code = "measuring_aborted"


class UnreliableClock(SnugnetError):
    """The machine's clock does not move forward while a network runs."""

    code = "unreliable_clock"


class Measurer:
    """Visits networks by the protocol. `anchors` holds the reference first, then others.

    Args:
        repeats: runs a visit of a network of moderate size.
        normal_ms: the anchors' normals where another session with the same anchors set them.
        extra_rounds: at most, for networks whose median is not yet exact.
        should_abort: asked before every visit.
        observe: load, steal time (cumulative) and frequency, read around every block.
        energy: read around the runs of every visit, where the machine has a counter.
        clock: seconds; tests pass their own, and `sleep` with it.
    """

    def __init__(
        self,
        anchors: Mapping[str, Runnable],
        *,
        repeats: int,
        seed: int,
        normal_ms: Mapping[str, float] | None = None,
        extra_rounds: int = EXTRA_ROUNDS,
        should_abort: Callable[[], bool] = lambda: False,
        observe: Callable[[], Conditions] = dict,
        energy: EnergyCounter | None = None,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not anchors:
            raise ValueError("at least one anchor is needed")
        self._anchors = dict(anchors)
        self._judge = Anchors(tuple(anchors), normal_ms)
        self._repeats = repeats
        self._extra_rounds = extra_rounds
        self._rng = random.Random(seed)
        self._should_abort = should_abort
        self._observe = observe
        self._energy = energy
        self._clock = clock
        self._sleep = sleep
        self._usual_ms: dict[str, float] = {}
        self._num_dropped = 0

    @staticmethod
    def check(should_abort: Callable[[], bool]) -> None:
        """Raises: MeasuringAborted when `should_abort` says so."""
        if should_abort():
            raise MeasuringAborted("asked to stop measuring")

    def measure(self, networks: Mapping[str, Runnable], *, rounds: int) -> Session:
        """Raises: MeasuringAborted when `should_abort` says so, UnreliableClock."""
        if clash := set(networks) & set(self._anchors):
            raise ValueError(f"networks are named as anchors: {sorted(clash)}")
        started = self._clock()
        for key, network in (*self._anchors.items(), *networks.items()):
            self.check(self._should_abort)
            self._usual_ms[key] = self._warm_up(network)
        num_blocks = rounds * -(-len(networks) // self._block_size(networks))
        log = Log(started_s=started, retries_left=max(MIN_RETRIES, num_blocks))
        for _ in range(rounds):
            self._visit(networks, log)
        self._repair(networks, log)
        for _ in range(self._extra_rounds):
            inexact = self._inexact(networks, log)
            if not inexact:
                break
            self._visit({key: networks[key] for key in inexact}, log)
        return Session.of(
            log,
            self._judge,
            networks=tuple(networks),
            anchors=tuple(self._anchors),
            num_dropped_runs=self._num_dropped,
            duration_s=self._clock() - started,
        )

    def repeats(self, key: str) -> int:
        """Runs a visit, once warm-up has shown how long one takes."""
        wanted = round(self._repeats * MODERATE_MS / self._usual_ms[key])
        return min(max(wanted, self._repeats // 2, 1), MOST_REPEATS * self._repeats)

    def _block_size(self, networks: Mapping[str, Runnable]) -> int:
        """Blocks of a round are alike: 17 networks make two of 9 and 8, not one of 16."""
        visits_ms = [self._visit_ms(key, self.repeats(key)) for key in networks]
        anchors_ms = sum(self._visit_ms(key, repeats) for key, _, repeats in self._order({}))
        block_ms = max(1e3 * BLOCK_S, BLOCK_PER_ANCHORS * anchors_ms)
        fitting = round(block_ms / float(np.mean(visits_ms)))
        fitting = min(max(fitting, MIN_BLOCK_SIZE), MAX_BLOCK_SIZE)
        return -(-len(networks) // -(-len(networks) // fitting))

    def _visit_ms(self, key: str, repeats: int) -> float:
        usual_ms = self._usual_ms[key]
        return usual_ms * (repeats + (usual_ms < SLOW_MS))

    def _visit(self, networks: Mapping[str, Runnable], log: Log) -> None:
        """One round: every network once, in blocks, in an order of its own."""
        keys = list(networks)
        self._rng.shuffle(keys)
        size = self._block_size(networks)
        for start in range(0, len(keys), size):
            members = {key: networks[key] for key in keys[start : start + size]}
            block = self._time_block(members, log)
            for attempt in range(RETRIES_PER_BLOCK):
                if not self._seems_disturbed(block, log) or not log.may_retry():
                    break
                log.discard(block)
                self._sleep(PAUSE_S * 2**attempt)
                block = self._time_block(members, log)
            log.keep(block)

    def _seems_disturbed(self, block: Block, log: Log) -> bool:
        known = log.kept
        if not self._judge.has_normal and len(known) < SETTLED_BLOCKS:
            return False  # which of two is the normal one, only `_repair` can tell
        return self._judge.fault(block, self._judge.normal_ms([*known, block])) is not None

    def _repair(self, networks: Mapping[str, Runnable], log: Log) -> None:
        """Tries blocks again whose fault only shows now that the session's normal is known."""
        normal_ms = self._judge.normal_ms(log.kept)
        for block in log.kept:
            if self._judge.fault(block, normal_ms) is None or not log.may_retry():
                continue
            members = {k: networks[k] for k in block.samples_ms if k in networks}
            again = self._time_block(members, log)
            if self._judge.fault(again, normal_ms) is None:
                log.replace(block, again)
            else:
                log.discard(again)

    def _time_block(self, members: Mapping[str, Runnable], log: Log) -> Block:
        """Anchors first, midway and last: whatever disturbs the networks shows in one of them."""
        before, started = self._observe(), self._clock()
        samples: dict[str, tuple[float, ...]] = {}
        visits: dict[str, list[Visit]] = {}
        keys = list(members)
        self._rng.shuffle(keys)
        for key, network, repeats in self._order({key: members[key] for key in keys}):
            self.check(self._should_abort)
            times, visit = self._time_visit(key, network, repeats)
            samples[key] = samples.get(key, ()) + times
            visits.setdefault(key, []).extend(visit)
        return Block(
            samples_ms=samples,
            at_s=started - log.started_s,
            conditions=_conditions(before, self._observe()),
            energies_mj={key: mean_mj(found) for key, found in visits.items()},
        )

    def _time_visit(
        self, key: str, network: Runnable, repeats: int
    ) -> tuple[tuple[float, ...], list[Visit]]:
        """Timed runs, and what all runs spent where that can be read.

        A reading needs its time: what the timed runs are short of, untimed ones after them fill.
        """
        usual_ms, num_dropped = self._usual_ms[key], self._num_dropped
        before = self._energy.read() if self._energy else None
        num_untimed = 0
        if usual_ms < SLOW_MS:
            network.run()  # what ran before has filled the caches with other weights
            num_untimed = 1
        times = tuple(self._time_ms(network, usual_ms) for _ in range(repeats))
        if self._energy is None or before is None:
            return times, []
        num_more = runs_to_add(sum(times), usual_ms)
        for _ in range(num_more):
            network.run()
        energy_mj = self._energy.spent_mj(before)
        if energy_mj is None or self._num_dropped > num_dropped:
            return times, []  # during a run that was dropped the machine may have slept
        return times, [Visit(energy_mj=energy_mj, num_runs=num_untimed + repeats + num_more)]

    def _order(self, members: Mapping[str, Runnable]) -> Iterator[tuple[str, Runnable, int]]:
        """What runs in a block, and how often."""
        keys = list(members)
        reference, *others = self._anchors
        ends, midway = [reference, *others[-1:]], others[:-1]
        middle = len(keys) // 2
        order = [*ends, *keys[:middle], *midway, *keys[middle:], *reversed(ends)]
        for key in order:
            repeats = self.repeats(key)
            fewest = MIN_ANCHOR_REPEATS if self._usual_ms[key] < SLOW_MS else 1
            if key in ends:
                repeats = max(-(-repeats // 2), fewest)
            elif key in midway:
                repeats = max(repeats, 2 * fewest)
            yield key, self._anchors[key] if key in self._anchors else members[key], repeats

    def _inexact(self, networks: Iterable[str], log: Log) -> list[str]:
        """Those with too few clean rounds, or whose clean rounds differ too much."""
        normal_ms = self._judge.normal_ms(log.kept)
        clean = [b for b in log.kept if self._judge.fault(b, normal_ms) is None]

        def is_inexact(key: str) -> bool:
            medians = np.array([b.median_ms(key) for b in clean if key in b.samples_ms])
            if len(medians) < min(MIN_CLEAN_ROUNDS, sum(key in b.samples_ms for b in log.kept)):
                return True
            error = 1.2533 * robust_deviation(medians) / math.sqrt(len(medians))
            return bool(error > TARGET_ERROR * np.median(medians))

        return [key for key in networks if is_inexact(key)]

    def _warm_up(self, network: Runnable) -> float:
        """Until the last three runs agree: first runs allocate, and read weights from memory.

        A slow network's second run is a warm one. Returns what a run usually takes then, in ms.
        """
        times: list[float] = []
        while len(times) < MAX_WARMUP_RUNS:
            times.append(self._time_ms(network))
            if len(times) == 2 and times[1] > SLOW_MS:
                break
            if len(times) < MIN_WARMUP_RUNS:
                continue
            last = times[-MIN_WARMUP_RUNS:]
            agree = max(last) - min(last) <= WARMUP_TOLERANCE * min(last)
            if agree or sum(times) > MAX_WARMUP_S * 1e3:
                break
        return float(np.median(times[1:][-MIN_WARMUP_RUNS:]))

    def _time_ms(self, network: Runnable, usual_ms: float | None = None) -> float:
        """One run; repeated when the time read is none, or absurd for this network."""
        most_ms = MAX_RUN_MS
        if usual_ms is not None:
            most_ms = min(most_ms, ABSURD_FACTOR * usual_ms + ABSURD_MS)
        run_ms = 0.0
        for _ in range(MAX_ABSURD_RUNS):
            start = self._clock()
            network.run()
            run_ms = (self._clock() - start) * 1e3
            if 0 < run_ms <= most_ms:
                return run_ms
            self._num_dropped += 1
        if not 0 < run_ms <= MAX_RUN_MS:
            raise UnreliableClock(f"the clock says that a run takes {run_ms:g} ms")
        return run_ms


def _conditions(before: Conditions, after: Conditions) -> Conditions:
    """As at the end, with what was stolen in between."""
    stolen = [c.get("steal_s") for c in (before, after)]
    steal_s = stolen[1] - stolen[0] if stolen[0] is not None and stolen[1] is not None else None
    return {**after, "steal_s": steal_s}
