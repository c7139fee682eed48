"""Energy that this machine's processor packages spend, from Linux's powercap counters (RAPL).

A counter is of a whole package: its cores and caches, busy or idle, for this network or for
whatever else runs beside it. Nothing is subtracted, so a figure compares networks on one quiet
device and is not the share of the network alone. What is outside of the package, a graphics card
say, is not in it; memory is only where the processor counts it as its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

POWERCAP = Path("/sys/class/powercap")
SOURCE = "rapl"
# Counters tick about every millisecond: being one tick off is at most 5 % of a reading.
MIN_READING_MS = 20.0

# AMD's counters have the same name. A part of a package is called like `intel-rapl:0:1`, and
# `intel-rapl-mmio:0` is a second way to the same package.
_TOP_LEVEL = re.compile(r"intel-rapl:\d+")

Reading = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Package:
    counter: Path
    range_uj: int  # at which it begins at 0 again


class EnergyCounter:
    """All packages of a machine, read together."""

    def __init__(self, packages: Iterable[_Package]) -> None:
        self._packages = tuple(packages)

    @classmethod
    def find(cls, powercap: Path = POWERCAP) -> Self | None:
        """None where there is no counter, or one that may not be read: since CVE-2020-8694 only
        root may, unless the administrator allows it."""
        try:
            folders = sorted(f for f in powercap.iterdir() if _TOP_LEVEL.fullmatch(f.name))
            found = cls(_package(folder) for folder in folders if _is_package(folder))
        except (OSError, ValueError):
            return None
        return found if found.read() else None

    def read(self) -> Reading | None:
        """Microjoules of each package; None while one cannot be read."""
        try:
            return tuple(_number(package.counter) for package in self._packages)
        except (OSError, ValueError):
            return None

    def spent_mj(self, before: Reading) -> float | None:
        """Millijoules since a reading of some minutes ago at most; None while it is not known."""
        after = self.read()
        if after is None:
            return None
        total_uj = 0
        for package, old, new in zip(self._packages, before, after, strict=True):
            total_uj += new - old if new >= old else new - old + package.range_uj
        return total_uj / 1e3


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """What one reading around a block of runs told."""

    energy_mj: float
    num_runs: int


def energy_source(powercap: Path = POWERCAP) -> str | None:
    """What a device says of itself: by which counters it measures energy, None if by none."""
    return SOURCE if EnergyCounter.find(powercap) else None


def runs_to_add(timed_ms: float, usual_ms: float) -> int:
    """Untimed runs that make a reading long enough, after runs of `timed_ms` in all."""
    return max(0, math.ceil((MIN_READING_MS - timed_ms) / usual_ms))


def mean_mj(visits: Iterable[Visit]) -> float | None:
    """Millijoules of one run; None without a reading, or of a counter that stands still."""
    found = list(visits)
    energy_mj = sum(visit.energy_mj for visit in found)
    return energy_mj / sum(visit.num_runs for visit in found) if energy_mj > 0 else None


def _is_package(folder: Path) -> bool:
    """Some machines count the whole platform at the same level, packages included."""
    return (folder / "name").read_text().startswith("package")


def _package(folder: Path) -> _Package:
    return _Package(counter=folder / "energy_uj", range_uj=_number(folder / "max_energy_range_uj"))


def _number(path: Path) -> int:
    return int(path.read_text())
