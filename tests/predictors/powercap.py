"""A folder of energy counters as Linux has them, of real files; energy is spent by hand."""

from __future__ import annotations

from pathlib import Path

RANGE_UJ = 262_143_328_850


class Powercap:
    """Packages 0, 1, ..., with what must not be counted beside them.

    That is a part of each package, the whole platform, and a second way to package 0.
    """

    def __init__(self, folder: Path, num_packages: int = 1, *, start_uj: int = 1000) -> None:
        self.folder = folder
        self._spent_uj = [float(start_uj)] * num_packages
        (folder / "intel-rapl").mkdir(parents=True)
        for place in range(num_packages):
            self._domain(f"intel-rapl:{place}", f"package-{place}", start_uj)
            self._domain(f"intel-rapl:{place}:0", "core", start_uj)
        self._domain(f"intel-rapl:{num_packages}", "psys", start_uj)
        self._domain("intel-rapl-mmio:0", "package-0", start_uj)

    def spend(self, energy_mj: float, package: int = 0) -> None:
        """Beyond its range a counter begins at 0 again."""
        self._spent_uj[package] += 1e3 * energy_mj
        counter_uj = round(self._spent_uj[package]) % RANGE_UJ
        self.counter(package).write_text(f"{counter_uj}\n")

    def counter(self, package: int = 0) -> Path:
        return self.folder / f"intel-rapl:{package}" / "energy_uj"

    def make_unreadable(self, package: int = 0) -> None:
        """Even for root, which may read a file of any mode."""
        self.counter(package).unlink()
        self.counter(package).mkdir()

    def _domain(self, domain: str, name: str, start_uj: int) -> None:
        folder = self.folder / domain
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
        (folder / "energy_uj").write_text(f"{start_uj}\n")
