"""Which predictor a latency belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from predictors.device import Device
from predictors.workload import Workload
from search.shape import ModelShape


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorKey:
    """All that changes a latency beyond recognition. Batch size and sequence length are not here:
    they are features of one predictor."""

    device_fingerprint: str
    runtime: str
    runtime_version: str
    provider: str
    precision: str
    threads: int
    phase: str

    @property
    def text(self) -> str:
        """Readable, and equal for equal keys."""
        return "/".join(
            (
                self.device_fingerprint,
                f"{self.runtime}-{self.runtime_version}",
                self.provider,
                self.precision,
                f"t{self.threads}",
                self.phase,
            )
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


def predictor_key(device: Device, workload: Workload, precision: str) -> PredictorKey:
    """Raises: InvalidInput when the device does not have the workload's runtime."""
    return PredictorKey(
        device_fingerprint=device.fingerprint,
        runtime=workload.runtime,
        runtime_version=device.runtime_version(workload.runtime),
        provider=workload.provider,
        precision=precision,
        threads=workload.threads,
        phase=workload.phase,
    )


def shape_key(shape: ModelShape) -> str:
    """Of the sizes that latency depends on: two vocabularies or label sets share a predictor."""
    irrelevant = {"vocab_size", "num_labels", "num_token_types", "norm_eps", "max_seq_len"}
    sizes = {name: value for name, value in shape.to_dict().items() if name not in irrelevant}
    return hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()[:12]
