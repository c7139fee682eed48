"""Which predictor a latency, or an energy, belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from predictors.device import Device
from predictors.workload import Workload
from search.shape import ModelShape

Quantity = Literal["latency", "energy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorKey:
    """All that changes a latency beyond recognition. Batch size and sequence length are not here:
    they are features of one predictor. `quantity` is what it predicts."""

    device_fingerprint: str
    runtime: str
    runtime_version: str
    provider: str
    precision: str
    threads: int
    phase: str
    quantity: Quantity = "latency"

    @property
    def text(self) -> str:
        """Readable, and equal for equal keys. That of a latency does not name its quantity."""
        latency = "/".join(
            (
                self.device_fingerprint,
                f"{self.runtime}-{self.runtime_version}",
                self.provider,
                self.precision,
                f"t{self.threads}",
                self.phase,
            )
        )
        return latency if self.quantity == "latency" else f"{latency}/{self.quantity}"

    def to_dict(self) -> dict[str, Any]:
        data = asdict(self)
        if self.quantity == "latency":
            del data["quantity"]  # a server that knows of no other reads it too
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


def predictor_key(
    device: Device, workload: Workload, precision: str, quantity: Quantity = "latency"
) -> PredictorKey:
    """Raises: InvalidInput when the device does not have the workload's runtime."""
    return PredictorKey(
        device_fingerprint=device.fingerprint,
        runtime=workload.runtime,
        runtime_version=device.runtime_version(workload.runtime),
        provider=workload.provider,
        precision=precision,
        threads=workload.threads,
        phase=workload.phase,
        quantity=quantity,
    )


def shape_key(shape: ModelShape) -> str:
    """Of the sizes that latency depends on: two vocabularies or label sets share a predictor."""
    irrelevant = {"vocab_size", "num_labels", "num_token_types", "norm_eps", "max_seq_len"}
    sizes = {name: value for name, value in shape.to_dict().items() if name not in irrelevant}
    return hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()[:12]
