"""A device, a measuring spec of tiny networks, and answers as an agent would give them."""

from __future__ import annotations

from typing import Any

from predictors.measurement import Measurement
from predictors.spec import (
    REFERENCE_KEY,
    MeasuringResult,
    MeasuringSpec,
    NetworkSpec,
    SessionSummary,
)
from predictors.workload import Workload
from search.shape import ModelShape
from search.space import SubnetConfig

IDENTITY: dict[str, Any] = {
    "cpu_model": "test",
    "machine": "x86_64",
    "num_cores": 2,
    "memory_bytes": 2**33,
    "os": "Linux 6.0",
    "runtimes": {
        "onnxruntime": {"version": "1.0", "providers": ["cpu"], "precisions": ["fp32", "int8"]}
    },
    "missing_runtimes": {"openvino": "openvino is not installed here (x86_64)"},
}
SHAPE = ModelShape(
    family="bert",
    num_layers=2,
    embed_dim=16,
    num_heads=2,
    head_dim=8,
    ffn_dim=32,
    vocab_size=50,
    max_seq_len=16,
    num_token_types=2,
    num_labels=2,
)
WORKLOAD = Workload(seq_len=8)


def subnet(depth: int = 1, precision: str = "fp32", ffn_dim: int = 16) -> SubnetConfig:
    return SubnetConfig(
        layers=tuple(range(depth)),
        num_heads=(1,) * depth,
        ffn_dim=(ffn_dim,) * depth,
        precision=precision,
    )


def measuring_spec(**changes: Any) -> MeasuringSpec:
    """Three networks, two of them in int8."""
    subnets = [subnet(1), subnet(1, "int8"), subnet(2, "int8")]
    values: dict[str, Any] = {
        "workload": WORKLOAD,
        "shape": SHAPE,
        "reference": NetworkSpec(key=REFERENCE_KEY, subnet=SubnetConfig.full(SHAPE)),
        "networks": tuple(NetworkSpec(key=f"n{i}", subnet=s) for i, s in enumerate(subnets)),
        "rounds": 3,
        "repeats": 1,
    }
    return MeasuringSpec(**(values | changes))


def answer(spec: MeasuringSpec | None = None, *, noisy: bool = False) -> dict[str, Any]:
    """What an agent reports; network i takes i + 2 ms."""
    spec = spec or measuring_spec()
    summary = SessionSummary(
        noisy=noisy,
        noise_floor=0.004,
        drift=0.01,
        num_blocks=3,
        retried_blocks=0,
        disturbed_blocks=0,
        duration_s=1.5,
    )
    return MeasuringResult(
        environment={"device": IDENTITY, "before": {"load": 0.1}, "after": {"load": 0.2}},
        session=summary,
        anchors=tuple(measured(n, 10.0 - i) for i, n in enumerate(spec.anchors)),
        measurements=tuple(measured(n, 2.0 + i) for i, n in enumerate(spec.networks)),
        peaks={"flops_per_s": {"fp32": 1e11, "int8": 3e11}, "bytes_per_s": 1e10},
    ).to_dict()


def measured(network: NetworkSpec, ms: float) -> Measurement:
    return Measurement(
        key=network.key,
        subnet=network.subnet,
        rounds_ms=((ms,), (ms * 1.01,), (ms * 0.99,)),
        reference_ms=((10.0,),) * 3,
        factors=(1.0,) * 3,
    )
