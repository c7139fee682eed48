"""What is asked of a network when its latency is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from predictors.fields import Fields
from search.errors import InvalidInput

# What each runtime's adapter can drive, if the machine has it, and the precisions it builds
# networks in there. What a machine really has, its `Device` says.
PROVIDERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "onnxruntime": {"cpu": ("fp32", "int8"), "cuda": ("fp32",), "tensorrt": ("fp32",)},
    "openvino": {"cpu": ("fp32",)},
    "torch": {"cpu": ("fp32",), "cuda": ("fp32",)},
}
RUNTIMES = tuple(PROVIDERS)
PHASES = ("encode", "prefill", "decode")
BOUNDS = {"batch_size": 1024, "seq_len": 131_072, "threads": 1024}


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One forward pass over `batch_size` sequences of `seq_len` tokens, padding included.

    `provider` is where the runtime executes it: its CPU kernels, CUDA, TensorRT. In phase
    `encode` all tokens are read and answered at once (an image counts as its patches); a language
    model's `prefill` reads them as a prompt, and `decode` reads one token more, with `seq_len`
    tokens in its cache.
    """

    batch_size: int = 1
    seq_len: int = 64
    threads: int = 1
    runtime: str = "onnxruntime"
    provider: str = "cpu"
    phase: str = "encode"

    def __post_init__(self) -> None:
        for name, highest in BOUNDS.items():
            value = getattr(self, name)
            if not 1 <= value <= highest:
                reason = "at least 1" if value < 1 else f"at most {highest}"
                raise InvalidInput(f"workload.{name}", f"must be {reason}: {value}")
        if self.runtime not in PROVIDERS:
            raise InvalidInput("workload.runtime", f"{self.runtime!r} is not one of {RUNTIMES}")
        known = tuple(PROVIDERS[self.runtime])
        if self.provider not in known:
            raise InvalidInput(
                "workload.provider", f"{self.runtime} has {known}, not {self.provider!r}"
            )
        if self.phase not in PHASES:
            raise InvalidInput("workload.phase", f"{self.phase!r} is not one of {PHASES}")

    @property
    def key(self) -> str:
        """Readable and equal for equal workloads."""
        size = f"b{self.batch_size}/s{self.seq_len}/t{self.threads}"
        return f"{self.phase}/{self.runtime}/{self.provider}/{size}"

    @property
    def num_tokens(self) -> int:
        """That one pass reads, over the batch."""
        return self.batch_size * (1 if self.phase == "decode" else self.seq_len)

    @property
    def precisions(self) -> tuple[str, ...]:
        """In which networks can be built for this runtime and provider."""
        return PROVIDERS[self.runtime][self.provider]

    def with_size(self, *, batch_size: int, seq_len: int) -> Workload:
        return replace(self, batch_size=batch_size, seq_len=seq_len)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises: InvalidInput naming the key that is unknown, of a wrong type, out of bounds."""
        fields = Fields(data, "workload")
        fields.refuse_others(cls.__slots__)
        default = cls()

        def size(name: str) -> int:
            return fields.integer(name, 1, BOUNDS[name], default=getattr(default, name))

        return cls(
            batch_size=size("batch_size"),
            seq_len=size("seq_len"),
            threads=size("threads"),
            runtime=fields.text("runtime", default.runtime),
            provider=fields.text("provider", default.provider),
            phase=fields.text("phase", default.phase),
        )
