"""A latency predictor of this machine, learnt at once and without the service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from predictors.features import macs_per_byte
from predictors.key import predictor_key
from predictors.measuring import run_measuring_spec
from predictors.onboarding import choose_networks
from predictors.probe import probe_device
from predictors.report import fit_and_report
from predictors.rows import rows_of
from predictors.spec import REFERENCE_KEY, MeasuringSpec, NetworkSpec
from predictors.workload import Workload
from predictors.workload_predictor import WorkloadPredictor
from search.export.quantize import needs_reduced_range
from search.model.fakequant import REDUCED_WEIGHT_BITS, WEIGHT_BITS
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig


def fit_predictor(
    space: SearchSpace,
    shape: ModelShape,
    workload: Workload,
    *,
    num_networks: int,
    num_holdout: int,
    seed: int,
) -> tuple[WorkloadPredictor, dict[str, Any]]:
    """Fitted to what this machine measures now, judged by networks held out."""
    plan = choose_networks(
        space, shape, workload, num_networks=num_networks, num_holdout=num_holdout, seed=seed
    )
    result = run_measuring_spec(plan.to_spec(shape, workload, rounds=5, repeats=5, seed=seed))
    device = probe_device()
    predictor, report = fit_and_report(
        rows_of(result, workload, "n"),
        rows_of(result, workload, "h"),
        keys={p: predictor_key(device, workload, p) for p in space.precision},
        shape=shape,
        workload=workload,
        macs_per_byte={p: macs_per_byte(result.peaks, p) for p in space.precision},
        noise_floor=result.session.noise_floor,
    )
    whole = report.to_dict()
    return predictor, {k: whole[k] for k in ("mape", "within_10", "spearman", "noise_floor")}


def measure_networks(
    subnets: Sequence[SubnetConfig], shape: ModelShape, workload: Workload, *, seed: int
) -> list[float]:
    """p50 of each on this machine, ms, all in one session."""
    spec = MeasuringSpec(
        workload=workload,
        shape=shape,
        reference=NetworkSpec(key=REFERENCE_KEY, subnet=SubnetConfig.full(shape)),
        networks=tuple(NetworkSpec(key=f"m{i}", subnet=s) for i, s in enumerate(subnets)),
        rounds=9,
        seed=seed,
    )
    result = run_measuring_spec(spec, max_sessions=3)
    found = {m.key: m.median_ms for m in result.measurements}
    return [found[f"m{i}"] for i in range(len(subnets))]


def weight_bits() -> int:
    """Of int8 weights here: one bit less where the kernels' sums would saturate."""
    device = probe_device()
    reduced = needs_reduced_range(frozenset(device.isa), device.machine)
    return REDUCED_WEIGHT_BITS if reduced else WEIGHT_BITS
