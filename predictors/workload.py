"""What is asked of a network when its latency is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from search.errors import InvalidInput

RUNTIMES = ("onnxruntime",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One forward pass over `batch_size` sequences of `seq_len` tokens, padding included."""

    batch_size: int = 1
    seq_len: int = 64
    threads: int = 1
    runtime: str = "onnxruntime"
    phase: str = "encode"

    def __post_init__(self) -> None:
        for name in ("batch_size", "seq_len", "threads"):
            if getattr(self, name) < 1:
                raise InvalidInput(
                    f"workload.{name}", f"must be at least 1: {getattr(self, name)}"
                )
        if self.runtime not in RUNTIMES:
            raise InvalidInput("workload.runtime", f"{self.runtime!r} is not one of {RUNTIMES}")

    @property
    def key(self) -> str:
        """Readable and equal for equal workloads."""
        return f"{self.phase}/{self.runtime}/b{self.batch_size}/s{self.seq_len}/t{self.threads}"

    @property
    def num_tokens(self) -> int:
        return self.batch_size * self.seq_len

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)
