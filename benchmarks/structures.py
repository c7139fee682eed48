"""How much of a network may stay to be so and so many times faster: measured, before any training.

Pruning by importance is planned at several depths and shares of the FLOPs; the networks are built
with random weights and timed in one session. What is then trained keeps its latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.local_device import measure_networks
from benchmarks.pipeline import SEED
from benchmarks.subjects import Subject
from search.compress.configs import PruneConfig
from search.compress.prune import IMPORTANCES, cheapest_sizes
from search.compress.stages import apply_stage
from search.space import SubnetConfig

KEEPS = (0.7, 0.58, 0.48, 0.4, 0.33, 0.27, 0.22, 0.18, 0.15, 0.12, 0.1, 0.08)
DEPTHS = (1.0, 2 / 3, 1 / 2)
MARGIN = 0.97  # of a latency: sessions differ by a few percent


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """What pruning by `config` leaves, and how long it takes in int8."""

    config: PruneConfig
    subnet: SubnetConfig
    int8_ms: float


def structures(
    subject: Subject, *, keeps: Sequence[float] = KEEPS
) -> tuple[float, list[Structure]]:
    """ms of the original in fp32, and the structures, measured in one session."""
    planned = [pair for depth in DEPTHS for pair in _planned(subject, depth, keeps)]
    subnets = [
        SubnetConfig.full(subject.shape),
        *(subnet.with_precision("int8") for _, subnet in planned),
    ]
    original_ms, *found = measure_networks(subnets, subject.shape, subject.job.workload, seed=SEED)
    return original_ms, [
        Structure(config=config, subnet=subnet, int8_ms=ms)
        for (config, subnet), ms in zip(planned, found, strict=True)
    ]


def largest_within(found: Sequence[Structure], budget_ms: float) -> list[Structure]:
    """Of every depth the one that keeps most and stays within the budget by a margin."""
    best: dict[int, Structure] = {}
    for one in sorted(found, key=lambda s: -s.config.keep):
        if one.int8_ms <= MARGIN * budget_ms:
            best.setdefault(one.config.num_layers, one)
    return list(best.values())


def _planned(
    subject: Subject, depth: float, keeps: Sequence[float]
) -> list[tuple[PruneConfig, SubnetConfig]]:
    """Of a depth: importance is measured once, as `prune` would for each share."""
    num_layers = round(depth * subject.shape.num_layers)
    data, whole = subject.data, subject.whole.flops(subject.data.seq_len)
    shallow = apply_stage(subject.whole, PruneConfig(keep=1.0, num_layers=num_layers), data)
    importance = IMPORTANCES["first-order"](shallow.model, data)
    sizes = shallow.subnet.renumbered()
    return [
        (
            PruneConfig(keep=keep, num_layers=num_layers),
            cheapest_sizes(subject.shape, sizes, importance, keep * whole, data.seq_len),
        )
        for keep in keeps
        if keep < depth
    ]
