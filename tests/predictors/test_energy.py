"""Reading counters of energy that are files."""

from __future__ import annotations

from pathlib import Path

import pytest

from predictors.energy import (
    EnergyCounter,
    Visit,
    energy_source,
    mean_mj,
    runs_to_add,
)
from tests.predictors.powercap import RANGE_UJ, Powercap


def counter_of(powercap: Powercap) -> EnergyCounter:
    found = EnergyCounter.find(powercap.folder)
    assert found is not None
    return found


def test_energy_is_that_of_all_packages_and_nothing_counts_twice(tmp_path: Path) -> None:
    powercap = Powercap(tmp_path / "powercap", num_packages=2)
    counter = counter_of(powercap)
    before = counter.read()
    assert before == (1000, 1000)
    powercap.spend(12.5)
    powercap.spend(7.0, package=1)
    assert counter.spent_mj(before) == pytest.approx(19.5)


def test_a_counter_that_began_at_zero_again_has_gone_on(tmp_path: Path) -> None:
    powercap = Powercap(tmp_path / "powercap", start_uj=RANGE_UJ - 1000)
    counter = counter_of(powercap)
    before = counter.read()
    assert before is not None
    powercap.spend(4.0)
    assert int(powercap.counter().read_text()) == 3000
    assert counter.spent_mj(before) == pytest.approx(4.0)


def test_a_machine_without_counters_measures_no_energy(tmp_path: Path) -> None:
    assert EnergyCounter.find(tmp_path / "absent") is None
    (tmp_path / "intel-rapl").mkdir()
    assert EnergyCounter.find(tmp_path) is None
    assert energy_source(tmp_path) is None


def test_counters_that_may_not_all_be_read_are_as_good_as_none(tmp_path: Path) -> None:
    powercap = Powercap(tmp_path / "powercap", num_packages=2)
    assert energy_source(powercap.folder) == "rapl"
    powercap.make_unreadable(package=1)
    assert EnergyCounter.find(powercap.folder) is None
    assert energy_source(powercap.folder) is None


def test_a_counter_that_cannot_be_read_any_more_tells_nothing(tmp_path: Path) -> None:
    powercap = Powercap(tmp_path / "powercap")
    counter = counter_of(powercap)
    before = counter.read()
    assert before is not None
    powercap.counter().write_text("busy\n")
    assert counter.read() is None
    assert counter.spent_mj(before) is None


def test_a_reading_is_made_as_long_as_the_counters_need() -> None:
    assert runs_to_add(timed_ms=25.0, usual_ms=5.0) == 0
    assert runs_to_add(timed_ms=5.0, usual_ms=0.5) == 30
    assert runs_to_add(timed_ms=19.0, usual_ms=30.0) == 1


def test_the_energy_of_a_run_is_the_mean_over_all_visits() -> None:
    visits = [Visit(energy_mj=30.0, num_runs=10), Visit(energy_mj=90.0, num_runs=20)]
    assert mean_mj(visits) == pytest.approx(4.0)
    assert mean_mj([]) is None
    assert mean_mj([Visit(energy_mj=0.0, num_runs=10)]) is None, "a counter that stands still"
