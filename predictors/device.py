"""What a device is: the hardware and software that a latency depends on, as it reports itself.

Only the nouns: `predictors.probe` fills them on the machine itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from predictors.fields import Fields, as_integer, as_text
from predictors.workload import Workload
from search.errors import InvalidInput

GIBIBYTE = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeInfo:
    """A runtime that a device has, where it can execute, and in which precisions."""

    version: str
    providers: tuple[str, ...] = ("cpu",)
    precisions: tuple[str, ...] = ("fp32",)

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "providers": list(self.providers),
            "precisions": list(self.precisions),
        }

    @classmethod
    def from_dict(cls, data: object, path: str = "runtime") -> Self:
        """Also of a bare version, as agents once reported ONNX Runtime."""
        if isinstance(data, str):
            return cls(version=data, precisions=("fp32", "int8"))
        fields = Fields(data, path)
        return cls(
            version=fields.text("version"),
            providers=fields.items("providers", as_text, default=("cpu",)),
            precisions=fields.items("precisions", as_text, default=("fp32",)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """Identity of a device: nothing in it changes from one minute to the next.

    Attributes:
        num_cores: that the agent may run on.
        isa: instruction sets that kernels are chosen by.
        gpus: name and driver of each.
        affinity: the cores that the agent is confined to; empty where it may use all.
        governor, max_frequency_mhz: of the clock, None where the system does not tell.
        cpu_quota_cores: cores' worth of time that a container may use; None without a quota.
        energy_source: by which counters it measures the energy of its processor packages, "rapl"
            say; None where it cannot.
        runtimes: by name, those that this device can measure in.
        missing_runtimes: why it cannot measure in the others.
    """

    cpu_model: str
    machine: str
    num_cores: int
    memory_bytes: int
    os: str
    isa: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    affinity: tuple[int, ...] = ()
    governor: str | None = None
    max_frequency_mhz: int | None = None
    cpu_quota_cores: float | None = None
    energy_source: str | None = None
    runtimes: Mapping[str, RuntimeInfo] = field(default_factory=dict)
    missing_runtimes: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Of the machine alone, runtimes left out: a predictor's key names its own runtime.

        Who may read energy counters makes nothing faster either. Memory counts in GiB, since the
        same machine reports a little more or less of it after a new kernel.
        """
        identity = self.to_dict()
        del identity["runtimes"], identity["missing_runtimes"], identity["energy_source"]
        identity["memory_bytes"] = round(self.memory_bytes / GIBIBYTE)
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def runtime(self, name: str) -> RuntimeInfo:
        """Raises: InvalidInput when the device does not have it, with the reason it gave."""
        if name in self.runtimes:
            return self.runtimes[name]
        has = ", ".join(self.runtimes) or "none"
        reason = self.missing_runtimes.get(name)
        because = f" ({reason})" if reason else ""
        raise InvalidInput(
            "workload.runtime", f"the device has no {name}{because}; its runtimes: {has}"
        )

    def runtime_version(self, name: str) -> str:
        """Raises: InvalidInput as `runtime` does."""
        return self.runtime(name).version

    def require(self, workload: Workload, precisions: tuple[str, ...] = ()) -> None:
        """Raises: InvalidInput naming what a workload asks for and this device lacks."""
        found = self.runtime(workload.runtime)
        if workload.provider not in found.providers:
            raise InvalidInput(
                "workload.provider",
                f"{workload.runtime} on this device has no {workload.provider!r}; "
                f"it has {', '.join(found.providers)}",
            )
        for precision in precisions:
            if precision not in found.precisions or precision not in workload.precisions:
                raise InvalidInput(
                    "precision",
                    f"{workload.runtime} ({workload.provider}) on this device does not do "
                    f"{precision}; it does {', '.join(found.precisions)}",
                )

    def to_dict(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__slots__}
        for name in ("isa", "gpus", "affinity"):
            values[name] = list(values[name])
        values["runtimes"] = {name: info.to_dict() for name, info in self.runtimes.items()}
        values["missing_runtimes"] = dict(self.missing_runtimes)
        return values

    @classmethod
    def from_dict(cls, data: object, path: str = "device") -> Self:
        """From what any agent reports: unknown keys are ignored, absent new ones stay empty.

        Raises:
            InvalidInput: a value is of a wrong type, or one that every agent knows is absent.
        """
        fields = Fields(data, path)
        runtimes = fields.mapping("runtimes", {})
        missing = fields.mapping("missing_runtimes", {})
        return cls(
            cpu_model=fields.text("cpu_model"),
            machine=fields.text("machine"),
            num_cores=fields.integer("num_cores", 1),
            memory_bytes=fields.integer("memory_bytes", 0),
            os=fields.text("os"),
            isa=fields.items("isa", as_text, default=()),
            gpus=fields.items("gpus", as_text, default=()),
            affinity=fields.items("affinity", _as_core, default=()),
            governor=fields.text("governor") if fields.has("governor") else None,
            max_frequency_mhz=(
                fields.integer("max_frequency_mhz", 1) if fields.has("max_frequency_mhz") else None
            ),
            cpu_quota_cores=(
                fields.number("cpu_quota_cores", 0) if fields.has("cpu_quota_cores") else None
            ),
            energy_source=fields.text("energy_source") if fields.has("energy_source") else None,
            runtimes={
                name: RuntimeInfo.from_dict(info, f"{path}.runtimes.{name}")
                for name, info in runtimes.items()
            },
            missing_runtimes={
                name: as_text(reason, f"{path}.missing_runtimes.{name}")
                for name, reason in missing.items()
            },
        )


def _as_core(value: object, path: str) -> int:
    return as_integer(value, path, 0)
