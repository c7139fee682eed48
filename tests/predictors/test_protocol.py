"""The protocol on a synthetic machine, whose true times and disturbances are known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from predictors.energy import MIN_READING_MS, EnergyCounter
from predictors.protocol import Measurer, MeasuringAborted, UnreliableClock
from predictors.session import Session, keep_quietest, merge_sessions
from tests.predictors.powercap import Powercap


class Machine:
    """A clock that only runs when networks do, at a speed that may change with time."""

    def __init__(
        self,
        slowdown: Callable[[float], float] = lambda _: 1.0,
        noise: float = 0.002,
        jump_s: Callable[[int], float] = lambda _: 0.0,
        powercap: Powercap | None = None,
    ) -> None:
        self.now_s = 0.0
        self.order: list[str] = []
        self._slowdown = slowdown
        self._noise = noise
        self._jump_s = jump_s
        self._powercap = powercap
        self._rng = np.random.default_rng(0)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def spend(self, key: str, true_ms: float) -> None:
        self.order.append(key)
        jitter = 1 + self._noise * abs(self._rng.standard_normal())
        self.now_s += true_ms / 1e3 * self._slowdown(self.now_s) * jitter
        self.now_s += self._jump_s(len(self.order))
        if self._powercap is not None:
            self._powercap.spend(MJ_PER_MS * true_ms)

    @property
    def energy(self) -> EnergyCounter | None:
        return EnergyCounter.find(self._powercap.folder) if self._powercap else None


class Network:
    def __init__(self, machine: Machine, key: str, true_ms: float, first_ms: float = 0.0) -> None:
        self._machine, self._key, self._true_ms, self._first_ms = machine, key, true_ms, first_ms

    def run(self) -> None:
        self._machine.spend(self._key, self._true_ms + self._first_ms)
        self._first_ms = 0.0


MJ_PER_MS = 15.0
TRUE_MS = {f"n{i}": 1.0 + i for i in range(16)}


def measure(
    machine: Machine,
    *,
    rounds: int = 7,
    repeats: int = 5,
    seed: int = 0,
    first_ms: float = 0.0,
    true_ms: Mapping[str, float] = TRUE_MS,
    should_abort: Callable[[], bool] = lambda: False,
) -> Session:
    anchors = {
        "reference": Network(machine, "reference", 20.0),
        "middle": Network(machine, "middle", 9.0),
        "small": Network(machine, "small", 2.0),
    }
    networks = {k: Network(machine, k, ms, first_ms) for k, ms in true_ms.items()}
    measurer = Measurer(
        anchors,
        repeats=repeats,
        seed=seed,
        clock=machine.clock,
        sleep=machine.sleep,
        observe=lambda: {"steal_s": machine.now_s / 100, "load": 0.5},
        energy=machine.energy,
        should_abort=should_abort,
    )
    return measurer.measure(networks, rounds=rounds)


def in_turn(machine: Machine) -> list[str]:
    """What ran, one after the other, repeats left out."""
    order = machine.order
    return [key for i, key in enumerate(order) if i == 0 or order[i - 1] != key]


def worst_error(session: Session, true_ms: Mapping[str, float] = TRUE_MS) -> float:
    return max(abs(m.median_ms / true_ms[m.key] - 1) for m in session.measurements)


def test_a_quiet_machine_yields_the_true_times() -> None:
    session = measure(Machine())
    assert worst_error(session) < 0.005
    assert not session.is_noisy
    assert session.num_discarded == 0
    assert [m.key for m in session.measurements] == list(TRUE_MS)
    assert [m.key for m in session.anchors] == ["reference", "middle", "small"]


def test_blocks_of_a_slow_spell_are_thrown_away_and_named() -> None:
    session = measure(Machine(lambda now_s: 1.3 if 4.0 < now_s < 7.0 else 1.0))
    assert worst_error(session) < 0.01
    assert not session.is_noisy
    noisy = [block for block in session.blocks if block.reason is not None]
    assert noisy
    assert all(3.0 < block.at_s < 8.0 and not block.kept for block in noisy)
    assert max(block.offset for block in noisy) == pytest.approx(np.log(1.3), abs=0.02)
    assert any("moved by +" in (block.reason or "") for block in noisy)


def test_samples_of_blocks_that_were_thrown_away_stay_as_they_were_read() -> None:
    session = measure(Machine(lambda now_s: 1.3 if 4.0 < now_s < 7.0 else 1.0))
    discarded = [
        max(samples) / TRUE_MS[m.key] for m in session.measurements for samples in m.discarded_ms
    ]
    assert max(discarded) > 1.29
    kept = [max(s) / TRUE_MS[m.key] for m in session.measurements for s in m.rounds_ms]
    assert max(kept) < 1.05


def test_a_spell_that_outlasts_every_retry_is_divided_out() -> None:
    # From some time on all is slow by 30 %, so that neither state can be called the normal one.
    session = measure(Machine(lambda now_s: 1.3 if now_s > 6.0 else 1.0), rounds=9)
    ratios = [m.median_ms / TRUE_MS[m.key] for m in session.measurements]
    assert max(ratios) / min(ratios) < 1.03


def test_a_slow_start_is_found_once_the_normal_is_known() -> None:
    session = measure(Machine(lambda now_s: 1.5 if now_s < 3.0 else 1.0))
    assert worst_error(session) < 0.01
    assert not session.blocks[0].kept
    assert session.blocks[0].reason is not None


def test_slow_drift_is_removed() -> None:
    session = measure(Machine(lambda now_s: 1 + 0.004 * now_s))
    ratios = [m.median_ms / TRUE_MS[m.key] for m in session.measurements]
    assert max(ratios) / min(ratios) < 1.02


def test_a_bursty_neighbour_does_not_spoil_the_medians() -> None:
    session = measure(Machine(lambda now_s: 1.6 if now_s % 4.0 < 1.5 else 1.0))
    assert worst_error(session) < 0.05
    assert sum(block.reason is not None for block in session.blocks) > 2


def test_a_machine_that_is_never_quiet_is_called_noisy_and_still_answers() -> None:
    rng = np.random.default_rng(1)
    session = measure(Machine(lambda _: 1 + rng.exponential(0.6)))
    assert session.is_noisy
    assert session.noise_floor > 0.02
    assert all(len(m.rounds_ms) >= 3 and m.median_ms > 0 for m in session.measurements)


def test_a_noisy_machine_costs_more_time_but_not_without_end() -> None:
    rng = np.random.default_rng(1)
    session = measure(Machine(lambda _: 1 + rng.exponential(0.3)))
    visits = [len(m.rounds_ms) + len(m.discarded_ms) for m in session.measurements]
    assert 7 < max(visits) <= 7 + 4 + 14
    assert len(session.blocks) <= 2 * (7 + 4) + 14


def test_the_anchors_own_noise_is_not_passed_on_to_networks() -> None:
    session = measure(Machine(noise=0.02))
    factors = np.concatenate([m.factors for m in session.measurements])
    assert np.abs(factors - 1).max() < 0.01


def test_slow_networks_run_less_often_and_fast_ones_more() -> None:
    true_ms = {"fast": 0.5, "moderate": 12.0, "slow": 100.0, "very_slow": 2000.0}
    session = measure(Machine(), rounds=3, true_ms=true_ms)
    runs = {m.key: len(m.rounds_ms[0]) for m in session.measurements}
    assert runs == {"fast": 20, "moderate": 5, "slow": 2, "very_slow": 2}
    session = measure(Machine(), rounds=3, repeats=1, true_ms=true_ms)
    runs = {m.key: len(m.rounds_ms[0]) for m in session.measurements}
    assert runs == {"fast": 4, "moderate": 1, "slow": 1, "very_slow": 1}


def test_networks_are_interleaved_in_another_order_each_round() -> None:
    machine = Machine()
    session = measure(machine, rounds=3)
    changes = [key for key in in_turn(machine) if key in TRUE_MS][-48:]
    orders = {tuple(changes[start : start + 16]) for start in (0, 16, 32)}
    assert len(orders) == 3
    assert all(set(order) == set(TRUE_MS) for order in orders)
    assert all(len(m.rounds_ms) == 3 for m in session.measurements)


def test_anchors_run_at_both_ends_and_midway_through_a_block() -> None:
    machine = Machine()
    measure(machine, rounds=1)
    *_, block = "/".join(in_turn(machine)).split("reference/small/")
    places = [i for i, key in enumerate(block.split("/")) if key in ("middle", "small")]
    num_networks = len(block.split("/")) - 3
    assert places == [num_networks // 2, num_networks + 1]
    assert block.endswith("small/reference")


def test_the_same_seed_visits_in_the_same_order() -> None:
    machines = [Machine(), Machine(), Machine()]
    for machine, seed in zip(machines, (0, 0, 1), strict=True):
        measure(machine, seed=seed)
    assert machines[0].order == machines[1].order != machines[2].order


def test_a_slow_first_run_is_not_counted() -> None:
    session = measure(Machine(), first_ms=500.0)
    assert max(max(max(s) for s in m.rounds_ms) for m in session.measurements) < 20


@pytest.mark.parametrize("jump_s", [-30.0, 7200.0])
def test_runs_during_which_the_clock_jumped_are_dropped_and_repeated(jump_s: float) -> None:
    machine = Machine(jump_s=lambda run: jump_s if run in (300, 500) else 0.0)
    session = measure(machine)
    assert session.num_dropped_runs == 2
    assert worst_error(session) < 0.005
    samples = [ms for m in session.measurements for s in m.rounds_ms for ms in s]
    assert 0 < min(samples) <= max(samples) < 20


def test_a_clock_that_stands_still_is_said_to() -> None:
    machine = Machine()
    measurer = Measurer(
        {"reference": Network(machine, "reference", 1.0)}, repeats=1, seed=0, clock=lambda: 5.0
    )
    with pytest.raises(UnreliableClock, match="0 ms"):
        measurer.measure({"n0": Network(machine, "n0", 1.0)}, rounds=1)


def test_every_block_records_its_conditions() -> None:
    session = measure(Machine())
    assert all(block.load == 0.5 for block in session.blocks)
    assert all(block.frequency_mhz is None for block in session.blocks)
    steal_s = [block.steal_s for block in session.blocks]
    assert all(steal is not None and 0 < steal < session.duration_s for steal in steal_s)
    starts = [block.at_s for block in session.blocks]
    assert starts == sorted(starts)


def test_asked_to_stop_it_stops() -> None:
    machine = Machine()
    with pytest.raises(MeasuringAborted):
        measure(machine, should_abort=lambda: machine.now_s > 2.0)


def test_groups_measured_one_after_the_other_make_one_session() -> None:
    machine = Machine()
    parts = [measure(machine), measure(machine)]
    merged = merge_sessions(parts)
    assert len(merged.measurements) == 2 * len(TRUE_MS)
    assert len(merged.reference.rounds_ms) == merged.num_blocks
    assert [block.index for block in merged.blocks] == list(range(len(merged.blocks)))
    assert merged.blocks[-1].at_s > parts[0].duration_s


def test_of_several_tries_the_quietest_counts_and_raw_samples_of_all_stay() -> None:
    rng = np.random.default_rng(1)
    loud, quiet = measure(Machine(lambda _: 1 + rng.exponential(0.3))), measure(Machine())
    best = keep_quietest([loud, quiet])
    assert best.noise_floor == quiet.noise_floor
    assert len(best.blocks) == len(loud.blocks) + len(quiet.blocks)
    assert best.num_blocks == quiet.num_blocks
    assert best.measurements[0].rounds_ms == quiet.measurements[0].rounds_ms
    assert set(loud.measurements[0].rounds_ms) <= set(best.measurements[0].discarded_ms)


def test_anchors_are_needed_and_keep_their_names() -> None:
    machine = Machine()
    with pytest.raises(ValueError, match="anchor"):
        Measurer({}, repeats=1, seed=0)
    anchor = Network(machine, "reference", 1.0)
    measurer = Measurer({"reference": anchor}, repeats=1, seed=0, clock=machine.clock)
    with pytest.raises(ValueError, match="reference"):
        measurer.measure({"reference": anchor}, rounds=1)


@pytest.mark.parametrize(
    ("network_ms", "num_networks", "sizes"),
    [(500.0, 9, [3, 3, 3]), (1.0, 40, [14, 14, 12]), (12.0, 17, [9, 8])],
)
def test_a_block_holds_about_a_second_of_networks(
    network_ms: float, num_networks: int, sizes: list[int]
) -> None:
    machine = Machine()
    true_ms = {f"n{i}": network_ms for i in range(num_networks)}
    measure(machine, rounds=1, true_ms=true_ms)
    blocks = "/".join(in_turn(machine)).split("reference/small/")[1:]
    found = [sum(key in true_ms for key in block.split("/")) for block in blocks]
    assert found[: len(sizes)] == sizes


def test_every_network_and_anchor_has_the_energy_of_one_run(tmp_path: Path) -> None:
    session = measure(Machine(powercap=Powercap(tmp_path / "powercap")), rounds=3)
    for found in (*session.measurements, *session.anchors):
        assert len(found.rounds_mj) == len(found.rounds_ms)
        assert found.energy_mj == pytest.approx(MJ_PER_MS * found.median_ms, rel=0.01)


def test_a_reading_of_energy_lasts_long_enough_and_times_as_many_runs_as_without(
    tmp_path: Path,
) -> None:
    true_ms = {"fast": 0.1, "slow": 30.0}
    with_energy = Machine(powercap=Powercap(tmp_path / "powercap"))
    without = Machine()
    sessions = [measure(m, rounds=3, true_ms=true_ms) for m in (with_energy, without)]
    runs = [[len(times) for m in s.measurements for times in m.rounds_ms] for s in sessions]
    assert runs[0] == runs[1]
    assert sessions[1].measurements[0].energy_mj is None
    in_a_row = [
        len(list(same)) for key, same in itertools.groupby(with_energy.order) if key == "fast"
    ]
    assert min(in_a_row[1:]) * true_ms["fast"] > 0.95 * MIN_READING_MS, "all but the warm-up"
    assert with_energy.order.count("slow") == without.order.count("slow")


def test_a_reading_during_which_the_clock_jumped_is_dropped(tmp_path: Path) -> None:
    machine = Machine(
        jump_s=lambda run: 7200.0 if machine.order[:run].count("n0") == 20 else 0.0,
        powercap=Powercap(tmp_path / "powercap"),
    )
    session = measure(machine, rounds=3, true_ms={"n0": 5.0})
    assert session.num_dropped_runs == 1
    (found,) = session.measurements
    assert found.rounds_mj.count(None) == 1
    assert found.energy_mj == pytest.approx(MJ_PER_MS * 5.0, rel=0.01)


def test_a_counter_that_fails_in_the_middle_costs_no_time(tmp_path: Path) -> None:
    powercap = Powercap(tmp_path / "powercap")
    machine = Machine()
    network = Network(machine, "n0", 5.0)
    measurer = Measurer(
        {"reference": Network(machine, "reference", 20.0)},
        repeats=2,
        seed=0,
        energy=EnergyCounter.find(powercap.folder),
        clock=machine.clock,
        sleep=machine.sleep,
    )
    powercap.make_unreadable()
    session = measurer.measure({"n0": network}, rounds=3)
    assert session.measurements[0].rounds_mj == ()
    assert session.measurements[0].median_ms == pytest.approx(5.0, rel=0.01)


def test_groups_of_which_one_has_energies_keep_them_in_place(tmp_path: Path) -> None:
    parts = [measure(Machine(powercap=Powercap(tmp_path / "powercap"))), measure(Machine())]
    merged = merge_sessions(parts)
    (first, second) = (len(part.reference.rounds_ms) for part in parts)
    assert all(merged.reference.rounds_mj[:first])
    assert merged.reference.rounds_mj[first:] == (None,) * second
    assert merged.reference.energy_mj == pytest.approx(MJ_PER_MS * 20.0, rel=0.01)
