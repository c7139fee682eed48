"""What an agent is asked to measure and what it answers, as plain JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from predictors.blocks import BlockRecord
from predictors.bounds import PHASES_OF_FAMILY, check_shape, check_subnet, read_shape
from predictors.fields import Fields
from predictors.measurement import Measurement, as_subnet
from predictors.session import Session
from predictors.workload import Workload
from search.errors import InvalidInput
from search.shape import ModelShape
from search.space import PRECISIONS, SubnetConfig

REFERENCE_KEY = "reference"
MIDDLE_ANCHOR_KEY = "middle-anchor"
SMALL_ANCHOR_KEY = "small-anchor"
KEY_PATTERN = re.compile(r"[A-Za-z0-9_\-]{1,64}")
BLOB_PATTERN = re.compile(r"[0-9a-f]{64}")

MAX_NETWORKS = 512
MAX_ROUNDS = 100
MAX_REPEATS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSpec:
    """A network to build from `subnet` with random weights, or a file to fetch by its SHA-256.

    Of a file, `subnet` only says what it is, for whoever reads the result, and `vocab_size` how
    many words it knows if they are fewer than the shape's.
    """

    key: str
    subnet: SubnetConfig | None = None
    blob: str | None = None
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        if not KEY_PATTERN.fullmatch(self.key):  # it becomes a file name
            raise InvalidInput("networks.key", f"{self.key!r} is not letters, digits, '_' and '-'")
        if self.subnet is None and self.blob is None:
            raise InvalidInput(f"networks.{self.key}", "needs a subnet or a blob")
        if self.blob is not None and not BLOB_PATTERN.fullmatch(self.blob):
            raise InvalidInput(f"networks.{self.key}.blob", f"{self.blob!r} is no SHA-256")
        if self.vocab_size is not None and (self.blob is None or self.vocab_size < 1):
            raise InvalidInput(f"networks.{self.key}.vocab_size", "is of a file, and at least 1")

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"key": self.key}
        if self.subnet is not None:
            data["subnet"] = self.subnet.to_dict()
        if self.blob is not None:
            data["blob"] = self.blob
        if self.vocab_size is not None:
            data["vocab_size"] = self.vocab_size
        return data

    @classmethod
    def from_dict(cls, data: object, path: str = "network") -> Self:
        fields = Fields(data, path)
        fields.refuse_others(("key", "subnet", "blob", "vocab_size"))
        subnet = fields.value("subnet") if fields.has("subnet") else None
        return cls(
            key=fields.text("key"),
            subnet=None if subnet is None else as_subnet(subnet, fields.at("subnet")),
            blob=fields.text("blob") if fields.has("blob") else None,
            vocab_size=fields.integer("vocab_size", 1) if fields.has("vocab_size") else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuringSpec:
    """One session: `networks`, timed beside `reference` in at least `rounds` rounds.

    `repeats` is how often a network of moderate size runs in each round: slow ones run less
    often, fast ones more.
    """

    workload: Workload
    shape: ModelShape
    reference: NetworkSpec
    networks: tuple[NetworkSpec, ...]
    rounds: int = 7
    repeats: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_shape(self.shape)
        self._check_numbers()
        self._check_workload()
        for network in (self.reference, *self.networks):
            self._check_network(network)

    @property
    def anchors(self) -> tuple[NetworkSpec, ...]:
        """The reference, then networks that are the same in every session of this shape."""
        return (self.reference, *anchor_networks(self.shape, self.workload))

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
    def from_dict(cls, data: object) -> Self:
        """Raises: InvalidInput naming what is missing, of a wrong type, or out of bounds."""
        fields = Fields(data, "")
        fields.refuse_others(cls.__slots__)
        return cls(
            workload=Workload.from_dict(fields.mapping("workload")),
            shape=read_shape(fields.value("shape")),
            reference=NetworkSpec.from_dict(fields.value("reference"), "reference"),
            networks=fields.items("networks", NetworkSpec.from_dict),
            rounds=fields.integer("rounds", 1, MAX_ROUNDS, default=7),
            repeats=fields.integer("repeats", 1, MAX_REPEATS, default=5),
            seed=fields.integer("seed", 0, default=0),
        )

    def _check_numbers(self) -> None:
        keys = [MIDDLE_ANCHOR_KEY, SMALL_ANCHOR_KEY, self.reference.key]
        keys += [network.key for network in self.networks]
        if len(set(keys)) < len(keys):
            raise InvalidInput("networks", "every key may be given only once")
        for name, highest in (("rounds", MAX_ROUNDS), ("repeats", MAX_REPEATS)):
            value = getattr(self, name)
            if not 1 <= value <= highest:
                reason = "at least 1" if value < 1 else f"at most {highest}"
                raise InvalidInput(name, f"must be {reason}, got {value}")
        if not self.networks:
            raise InvalidInput("networks", "nothing to measure")
        if len(self.networks) > MAX_NETWORKS:
            raise InvalidInput(
                "networks", f"at most {MAX_NETWORKS} a session, got {len(self.networks)}"
            )

    def _check_workload(self) -> None:
        new = 1 if self.workload.phase == "decode" else 0
        if self.workload.seq_len + new > self.shape.max_seq_len:
            raise InvalidInput(
                "workload.seq_len", f"the model reads at most {self.shape.max_seq_len} tokens"
            )
        if self.shape.reads_images and self.workload.seq_len != self.shape.max_seq_len:
            raise InvalidInput(
                "workload.seq_len", f"an image of this model is {self.shape.max_seq_len} tokens"
            )
        phases = PHASES_OF_FAMILY[self.shape.family]
        if self.workload.phase not in phases:
            raise InvalidInput(
                "workload.phase", f"{self.shape.family} does {phases}, not {self.workload.phase!r}"
            )

    def _check_network(self, network: NetworkSpec) -> None:
        path = f"networks.{network.key}"
        if network.subnet is not None:
            check_subnet(network.subnet, self.shape, f"{path}.subnet")
        if network.blob is not None:
            if self.workload.runtime == "torch":
                raise InvalidInput(
                    f"{path}.blob", "torch builds networks itself and runs no ONNX file"
                )
        elif network.subnet and network.subnet.precision not in self.workload.precisions:
            raise InvalidInput(
                f"{path}.subnet.precision",
                f"{self.workload.runtime} ({self.workload.provider}) builds networks in "
                f"{self.workload.precisions}, not {network.subnet.precision!r}",
            )


def anchor_networks(shape: ModelShape, workload: Workload) -> tuple[NetworkSpec, NetworkSpec]:
    """A middle and a small network, far from the reference in size.

    The small one is in the runtime's last precision, so that integer kernels are watched too.
    """
    middle = _scaled(shape, (2, 3), workload.precisions[0])
    small = small_anchor_subnet(shape, workload.precisions[-1])
    return (
        NetworkSpec(key=MIDDLE_ANCHOR_KEY, subnet=middle),
        NetworkSpec(key=SMALL_ANCHOR_KEY, subnet=small),
    )


def small_anchor_subnet(shape: ModelShape, precision: str = "int8") -> SubnetConfig:
    """A third of the layers at half of the widths."""
    depth = -(-shape.num_layers // 3)
    return _uniform(depth, _scaled_heads(shape, (1, 2)), -(-shape.ffn_dim // 2), precision)


def _scaled(shape: ModelShape, share: tuple[int, int], precision: str) -> SubnetConfig:
    part, whole = share

    def scale(size: int) -> int:
        return -(-size * part // whole)

    return _uniform(
        scale(shape.num_layers), _scaled_heads(shape, share), scale(shape.ffn_dim), precision
    )


def _scaled_heads(shape: ModelShape, share: tuple[int, int]) -> int:
    """Query heads of a share of the key-value heads, which have all of theirs."""
    part, whole = share
    return -(-shape.num_kv_heads * part // whole) * shape.queries_per_group


def _uniform(depth: int, num_heads: int, ffn_dim: int, precision: str) -> SubnetConfig:
    return SubnetConfig(
        layers=tuple(range(depth)),
        num_heads=(num_heads,) * depth,
        ffn_dim=(ffn_dim,) * depth,
        precision=precision,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionSummary:
    """How well a session went.

    Attributes:
        noise_floor: relative error of a typical median.
        drift: robust deviation of the device's speed between blocks.
        num_blocks: from which figures are derived; `disturbed_blocks` of them are noisy.
        retried_blocks: thrown away because the anchors had moved.
        dropped_runs: whose time could not be believed: a clock that jumped.
        blocks: every block in the order of time.
    """

    noisy: bool
    noise_floor: float
    drift: float
    num_blocks: int
    retried_blocks: int
    disturbed_blocks: int
    duration_s: float
    dropped_runs: int = 0
    blocks: tuple[BlockRecord, ...] = ()

    @property
    def noisy_blocks(self) -> tuple[BlockRecord, ...]:
        """Those whose anchors were off, kept or not, with the reason."""
        return tuple(block for block in self.blocks if block.reason is not None)

    @property
    def anchor_offsets(self) -> tuple[float, ...]:
        """Of each block in the order of time: 0.05 is 5 % slower than the session's normal."""
        return tuple(block.offset for block in self.blocks)

    @classmethod
    def of(cls, session: Session) -> Self:
        return cls(
            noisy=session.is_noisy,
            noise_floor=session.noise_floor,
            drift=session.drift,
            num_blocks=session.num_blocks,
            retried_blocks=session.num_discarded,
            disturbed_blocks=session.num_disturbed,
            duration_s=session.duration_s,
            dropped_runs=session.num_dropped_runs,
            blocks=session.blocks,
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "blocks": [block.to_dict() for block in self.blocks],
            "noisy_blocks": [block.to_dict() for block in self.noisy_blocks],
            "anchor_offsets": list(self.anchor_offsets),
        }

    @classmethod
    def from_dict(cls, data: object, path: str = "session") -> Self:
        fields = Fields(data, path)
        return cls(
            noisy=fields.flag("noisy"),
            noise_floor=fields.number("noise_floor", 0.0),
            drift=fields.number("drift", 0.0),
            num_blocks=fields.integer("num_blocks", 0),
            retried_blocks=fields.integer("retried_blocks", 0),
            disturbed_blocks=fields.integer("disturbed_blocks", 0),
            duration_s=fields.number("duration_s", 0.0),
            dropped_runs=fields.integer("dropped_runs", 0, default=0),
            blocks=fields.items("blocks", BlockRecord.from_dict, default=()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuringResult:
    """The answer to a `MeasuringSpec`, raw samples included.

    `peaks` is what the runtime reached on large matrices: `flops_per_s` by precision, and
    `bytes_per_s`; empty where it was not measured.
    """

    environment: Mapping[str, Any]
    session: SessionSummary
    anchors: tuple[Measurement, ...]  # the reference first
    measurements: tuple[Measurement, ...]
    peaks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> Measurement:
        return self.anchors[0]

    def measurement(self, key: str) -> Measurement:
        """Raises: KeyError when nothing of this key was measured."""
        for measurement in (*self.anchors, *self.measurements):
            if measurement.key == key:
                return measurement
        raise KeyError(key)

    def to_dict(self) -> dict[str, Any]:
        return {
            "environment": dict(self.environment),
            "session": self.session.to_dict(),
            "peaks": dict(self.peaks),
            "anchors": [m.to_dict() for m in self.anchors],
            "measurements": [m.to_dict() for m in self.measurements],
        }

    @classmethod
    def from_dict(cls, data: object, spec: MeasuringSpec | None = None) -> Self:
        """Trusts nothing: `data` may come from any agent.

        Args:
            spec: what was asked for; then exactly its networks must be answered.

        Raises:
            InvalidInput: naming the sample, the key or the network that is wrong.
        """
        fields = Fields(data, "")
        result = cls(
            environment=fields.mapping("environment"),
            session=SessionSummary.from_dict(fields.value("session")),
            anchors=fields.items("anchors", Measurement.from_dict),
            measurements=fields.items("measurements", Measurement.from_dict),
            peaks=_read_peaks(fields.mapping("peaks", {}), "peaks"),
        )
        if not result.anchors:
            raise InvalidInput("anchors", "must not be empty")
        if spec is not None:
            _check_answers(result.anchors, spec.anchors, "anchors")
            _check_answers(result.measurements, spec.networks, "measurements")
        return result


def _check_answers(found: Sequence[Measurement], asked: Sequence[NetworkSpec], path: str) -> None:
    """Raises: InvalidInput unless `found` are the networks that were asked for, in their order."""
    keys = [measurement.key for measurement in found]
    wanted = [network.key for network in asked]
    for i, key in enumerate(keys):
        if key not in wanted:
            raise InvalidInput(f"{path}[{i}].key", f"{key!r} was not asked for"[:200])
        if key in keys[:i]:
            raise InvalidInput(f"{path}[{i}].key", f"{key!r} is answered twice")
    missing = [key for key in wanted if key not in keys]
    if missing:
        raise InvalidInput(path, f"{missing[0]!r} is missing")
    if keys != wanted:
        raise InvalidInput(path, f"must be in the order that was asked for: {wanted[:3]}...")
    for i, (measurement, network) in enumerate(zip(found, asked, strict=True)):
        if measurement.subnet != network.subnet:
            raise InvalidInput(f"{path}[{i}].subnet", "is not the subnet that was asked for")


def _read_peaks(data: Mapping[str, Any], path: str) -> dict[str, Any]:
    if not data:
        return {}
    fields = Fields(data, path)
    flops = Fields(fields.mapping("flops_per_s"), fields.at("flops_per_s"))
    return {
        "flops_per_s": {p: flops.number(p, 1.0) for p in PRECISIONS if flops.has(p)},
        "bytes_per_s": fields.number("bytes_per_s", 1.0),
    }
