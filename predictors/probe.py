"""This machine: what it is, and what may disturb a measurement on it right now."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from predictors.device import Device
from predictors.energy import POWERCAP, energy_source
from predictors.runtimes.registry import find_runtimes
from search.export.quantize import cpu_flags

# The instruction sets that kernels are chosen by; the other hundred flags change no latency.
RELEVANT_FLAGS = frozenset(
    {"sse4_1", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni"}
    | {"amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "sve", "sve2", "i8mm", "bf16"}
)
CPUFREQ = "/sys/devices/system/cpu/cpu0/cpufreq"
NVIDIA_SMI_TIMEOUT_S = 10.0


def probe_device(powercap: Path = POWERCAP) -> Device:
    """The device that this process runs on; loads every runtime that is installed."""
    found = find_runtimes()
    return Device(
        cpu_model=_cpu_model(),
        machine=platform.machine(),
        num_cores=len(_usable_cores()),
        memory_bytes=min(psutil.virtual_memory().total, _memory_limit_bytes()),
        os=f"{platform.system()} {platform.release()}",
        isa=tuple(sorted(cpu_flags() & RELEVANT_FLAGS)),
        gpus=_gpus(),
        affinity=_affinity(),
        governor=_read(f"{CPUFREQ}/scaling_governor"),
        max_frequency_mhz=_frequency_mhz("cpuinfo_max_freq"),
        cpu_quota_cores=_cpu_quota_cores(),
        energy_source=energy_source(powercap),
        runtimes=found.available,
        missing_runtimes=found.missing,
    )


def probe_environment() -> dict[str, Any]:
    """What may disturb a measurement right now; None where the system does not tell."""
    return {
        **probe_load(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "available_bytes": psutil.virtual_memory().available,
        "governor": _read(f"{CPUFREQ}/scaling_governor"),
        "cpu_quota_cores": _cpu_quota_cores(),
        "temperature_c": _temperature_c(),
    }


def probe_load() -> dict[str, float | None]:
    """The part that is quick enough to be read around every block (about 0.1 ms)."""
    return {
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "steal_s": getattr(psutil.cpu_times(), "steal", None),
        "frequency_mhz": _frequency_mhz("scaling_cur_freq"),
    }


def available_bytes() -> int:
    """Memory that can be taken without swapping, within the container's limit."""
    limit, used = _memory_limit_bytes(), _memory_used_bytes()
    return min(psutil.virtual_memory().available, max(0, limit - used))


def _cpu_model() -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _affinity() -> tuple[int, ...]:
    cores = _usable_cores()
    return () if len(cores) >= (os.cpu_count() or 1) else tuple(sorted(cores))


def _gpus() -> tuple[str, ...]:
    """Name and driver of each NVIDIA GPU; a new driver has new kernels."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=NVIDIA_SMI_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def _frequency_mhz(name: str) -> int | None:
    text = _read(f"{CPUFREQ}/{name}")
    return int(text) // 1000 if text and text.isdigit() else None


def _cpu_quota_cores() -> float | None:
    """Of cgroup v2, then v1."""
    quota, _, period = (_read("/sys/fs/cgroup/cpu.max") or "").partition(" ")
    if not quota:
        quota = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") or ""
        period = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us") or ""
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return int(quota) / int(period)
    return None


def _memory_limit_bytes() -> int:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(path)
        if text and text.isdigit():
            return int(text)
    return psutil.virtual_memory().total


def _memory_used_bytes() -> int:
    """Of the container, without files that are only cached."""
    text = _read("/sys/fs/cgroup/memory.current")
    if not text or not text.isdigit():
        return 0
    lines = (_read("/sys/fs/cgroup/memory.stat") or "").splitlines()
    cached = [int(line.split()[1]) for line in lines if line.startswith("inactive_file ")]
    return max(0, int(text) - sum(cached))


def _temperature_c() -> float | None:
    """The hottest sensor of the CPU."""
    read_sensors = getattr(psutil, "sensors_temperatures", None)
    sensors: Mapping[str, Sequence[Any]] = read_sensors() if read_sensors else {}
    readings = [entry.current for entries in sensors.values() for entry in entries]
    return max(readings, default=None)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
