"""What a device is: the hardware and software that a latency depends on, as it reports itself."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import onnxruntime
import psutil

from search.export.quantize import cpu_flags

# The instruction sets that kernels are chosen by; the other hundred flags change no latency.
RELEVANT_FLAGS = frozenset(
    {"sse4_1", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni"}
    | {"amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "sve", "sve2", "i8mm", "bf16"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """Identity of a device: nothing in it changes from one minute to the next."""

    cpu_model: str
    machine: str
    num_cores: int
    memory_bytes: int
    os: str
    isa: tuple[str, ...]
    runtimes: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Equal when old measurements still hold: a new runtime is a new fingerprint."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"isa": list(self.isa), "runtimes": dict(self.runtimes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "isa": tuple(data["isa"])})


def probe_device() -> Device:
    """The device that this process runs on."""
    return Device(
        cpu_model=_cpu_model(),
        machine=platform.machine(),
        num_cores=_num_usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        os=f"{platform.system()} {platform.release()}",
        isa=tuple(sorted(cpu_flags() & RELEVANT_FLAGS)),
        runtimes={"onnxruntime": onnxruntime.__version__},
    )


def probe_environment() -> dict[str, Any]:
    """What may disturb a measurement right now; None where the system does not tell."""
    return {
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "steal_s": getattr(psutil.cpu_times(), "steal", None),
        "available_bytes": psutil.virtual_memory().available,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "cpu_quota": _read("/sys/fs/cgroup/cpu.max"),
    }


def _cpu_model() -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _num_usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
