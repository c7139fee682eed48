"""The protocol on a synthetic machine, whose true times and disturbances are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from predictors.protocol import Measurer, MeasuringAborted, Session, merge_sessions


class Machine:
    """A clock that only runs when networks do, at a speed that may change with time."""

    def __init__(
        self, slowdown: Callable[[float], float] = lambda _: 1.0, noise: float = 0.002
    ) -> None:
        self.now_s = 0.0
        self.order: list[str] = []
        self._slowdown = slowdown
        self._noise = noise
        self._rng = np.random.default_rng(0)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def spend(self, key: str, true_ms: float) -> None:
        self.order.append(key)
        jitter = 1 + self._noise * abs(self._rng.standard_normal())
        self.now_s += true_ms / 1e3 * self._slowdown(self.now_s) * jitter


class Network:
    def __init__(self, machine: Machine, key: str, true_ms: float, first_ms: float = 0.0) -> None:
        self._machine, self._key, self._true_ms, self._first_ms = machine, key, true_ms, first_ms

    def run(self) -> None:
        self._machine.spend(self._key, self._true_ms + self._first_ms)
        self._first_ms = 0.0


TRUE_MS = {f"n{i}": 1.0 + i for i in range(16)}


def measure(
    machine: Machine,
    *,
    rounds: int = 7,
    seed: int = 0,
    first_ms: float = 0.0,
    should_abort: Callable[[], bool] = lambda: False,
) -> Session:
    anchors = {"reference": Network(machine, "reference", 20.0), "small": Network(machine, "s", 2)}
    networks = {k: Network(machine, k, ms, first_ms) for k, ms in TRUE_MS.items()}
    measurer = Measurer(
        anchors,
        repeats=5,
        seed=seed,
        clock=machine.clock,
        sleep=machine.sleep,
        should_abort=should_abort,
    )
    return measurer.measure(networks, rounds=rounds)


def worst_error(session: Session) -> float:
    return max(abs(m.median_ms / TRUE_MS[m.key] - 1) for m in session.measurements)


def test_a_quiet_machine_yields_the_true_times() -> None:
    session = measure(Machine())
    assert worst_error(session) < 0.005
    assert not session.is_noisy
    assert session.num_retried == 0
    assert [m.key for m in session.measurements] == list(TRUE_MS)


def test_a_slow_spell_is_removed_by_the_session_factor() -> None:
    # Slow by 30 % from the first second on for longer than any retry waits.
    machine = Machine(lambda now_s: 1.3 if 3.0 < now_s < 8.0 else 1.0)
    session = measure(machine)
    assert session.num_disturbed > 0
    assert worst_error(session) < 0.02
    assert max(max(m.factors) for m in session.measurements) == pytest.approx(1.3, abs=0.03)


def test_slow_drift_is_removed() -> None:
    session = measure(Machine(lambda now_s: 1 + 0.004 * now_s))
    ratios = [m.median_ms / TRUE_MS[m.key] for m in session.measurements]
    assert max(ratios) / min(ratios) < 1.02


def test_a_disturbed_block_is_tried_again() -> None:
    machine = Machine(lambda now_s: 2.0 if 4.0 < now_s < 4.5 else 1.0)
    session = measure(machine)
    assert session.num_retried > 0
    assert session.num_disturbed == 0
    assert worst_error(session) < 0.01


def test_a_machine_that_is_never_quiet_is_called_noisy_and_still_answers() -> None:
    rng = np.random.default_rng(1)
    session = measure(Machine(lambda _: 1 + rng.exponential(0.6)))
    assert session.is_noisy
    assert all(len(m.rounds_ms) >= 7 and m.median_ms > 0 for m in session.measurements)


def test_a_noisy_machine_gets_more_rounds_but_not_without_end() -> None:
    rng = np.random.default_rng(1)
    session = measure(Machine(lambda _: 1 + rng.exponential(0.3)))
    visits = [len(m.rounds_ms) for m in session.measurements]
    assert 7 < max(visits) <= 11


def test_the_anchors_own_noise_is_not_passed_on_to_networks() -> None:
    session = measure(Machine(noise=0.02))
    factors = np.concatenate([m.factors for m in session.measurements])
    assert np.abs(factors - 1).max() < 0.01


def test_networks_are_interleaved_in_another_order_each_round() -> None:
    machine = Machine()
    session = measure(machine, rounds=3)
    visits = [key for key in machine.order if key in TRUE_MS][-3 * 16 * 6 :: 6]
    orders = {tuple(visits[start : start + 16]) for start in (0, 16, 32)}
    assert len(orders) == 3
    assert all(set(order) == set(TRUE_MS) for order in orders)
    assert all(len(m.rounds_ms) == 3 for m in session.measurements)


def test_the_same_seed_visits_in_the_same_order() -> None:
    machines = [Machine(), Machine(), Machine()]
    for machine, seed in zip(machines, (0, 0, 1), strict=True):
        measure(machine, seed=seed)
    assert machines[0].order == machines[1].order != machines[2].order


def test_a_slow_first_run_is_not_counted() -> None:
    session = measure(Machine(), first_ms=500.0)
    assert max(max(max(s) for s in m.rounds_ms) for m in session.measurements) < 20


def test_raw_samples_are_kept_as_they_were_read() -> None:
    session = measure(Machine(lambda now_s: 1.3 if now_s > 6 else 1.0))
    raw = max(max(max(s) for s in m.rounds_ms) / TRUE_MS[m.key] for m in session.measurements)
    assert raw > 1.29


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


def test_anchors_are_needed_and_keep_their_names() -> None:
    machine = Machine()
    with pytest.raises(ValueError, match="anchor"):
        Measurer({}, repeats=1, seed=0)
    anchor = Network(machine, "reference", 1.0)
    measurer = Measurer({"reference": anchor}, repeats=1, seed=0, clock=machine.clock)
    with pytest.raises(ValueError, match="reference"):
        measurer.measure({"reference": anchor}, rounds=1)
