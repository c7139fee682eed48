"""What an agent is asked to measure and what it answers, as plain JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from predictors.measurement import Measurement
from predictors.protocol import Session
from predictors.workload import Workload
from search.errors import InvalidInput
from search.space import ModelShape, SubnetConfig

REFERENCE_KEY = "reference"
SMALL_ANCHOR_KEY = "small-anchor"
KEY_PATTERN = re.compile(r"[A-Za-z0-9_\-]{1,64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSpec:
    """A network to build from `subnet` with random weights, or a file to fetch by its SHA-256.

    Of a file, `subnet` only says what it is, for whoever reads the result.
    """

    key: str
    subnet: SubnetConfig | None = None
    blob: str | None = None

    def __post_init__(self) -> None:
        if not KEY_PATTERN.fullmatch(self.key):  # it becomes a file name
            raise InvalidInput("networks.key", f"{self.key!r} is not letters, digits, '_' and '-'")
        if self.subnet is None and self.blob is None:
            raise InvalidInput(f"networks.{self.key}", "needs a subnet or a blob")

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"key": self.key}
        if self.subnet is not None:
            data["subnet"] = self.subnet.to_dict()
        if self.blob is not None:
            data["blob"] = self.blob
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        subnet = data.get("subnet")
        return cls(
            key=data["key"],
            subnet=SubnetConfig.from_dict(subnet) if subnet else None,
            blob=data.get("blob"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuringSpec:
    """One session: `networks`, timed beside `reference` in at least `rounds` rounds."""

    workload: Workload
    shape: ModelShape
    reference: NetworkSpec
    networks: tuple[NetworkSpec, ...]
    rounds: int = 7
    repeats: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        keys = [SMALL_ANCHOR_KEY, self.reference.key, *(n.key for n in self.networks)]
        if len(set(keys)) < len(keys):
            raise InvalidInput("networks", "every key may be given only once")
        for name in ("rounds", "repeats"):
            if getattr(self, name) < 1:
                raise InvalidInput(name, f"must be at least 1, got {getattr(self, name)}")
        if not self.networks:
            raise InvalidInput("networks", "nothing to measure")
        if self.workload.seq_len > self.shape.max_seq_len:
            raise InvalidInput(
                "workload.seq_len", f"the model reads at most {self.shape.max_seq_len} tokens"
            )

    def to_dict(self) -> dict[str, Any]:
        return {
            "workload": self.workload.to_dict(),
            "shape": self.shape.to_dict(),
            "rounds": self.rounds,
            "repeats": self.repeats,
            "seed": self.seed,
            "reference": self.reference.to_dict(),
            "networks": [network.to_dict() for network in self.networks],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            workload=Workload.from_dict(data["workload"]),
            shape=ModelShape.from_dict(data["shape"]),
            reference=NetworkSpec.from_dict(data["reference"]),
            networks=tuple(NetworkSpec.from_dict(n) for n in data["networks"]),
            rounds=data["rounds"],
            repeats=data["repeats"],
            seed=data["seed"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionSummary:
    """How well a session went."""

    noisy: bool
    noise_floor: float
    drift: float
    num_blocks: int
    retried_blocks: int
    disturbed_blocks: int
    duration_s: float

    @classmethod
    def of(cls, session: Session) -> Self:
        return cls(
            noisy=session.is_noisy,
            noise_floor=session.noise_floor,
            drift=session.drift,
            num_blocks=session.num_blocks,
            retried_blocks=session.num_retried,
            disturbed_blocks=session.num_disturbed,
            duration_s=session.duration_s,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuringResult:
    """The answer to a `MeasuringSpec`, raw samples included."""

    environment: Mapping[str, Any]
    session: SessionSummary
    reference: Measurement
    small_anchor: Measurement
    measurements: tuple[Measurement, ...]

    def measurement(self, key: str) -> Measurement:
        """Raises: KeyError when nothing of this key was measured."""
        for measurement in (self.reference, self.small_anchor, *self.measurements):
            if measurement.key == key:
                return measurement
        raise KeyError(key)

    def to_dict(self) -> dict[str, Any]:
        return {
            "environment": dict(self.environment),
            "session": asdict(self.session),
            "reference": self.reference.to_dict(),
            "small_anchor": self.small_anchor.to_dict(),
            "measurements": [m.to_dict() for m in self.measurements],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            environment=data["environment"],
            session=SessionSummary(**data["session"]),
            reference=Measurement.from_dict(data["reference"]),
            small_anchor=Measurement.from_dict(data["small_anchor"]),
            measurements=tuple(Measurement.from_dict(m) for m in data["measurements"]),
        )
