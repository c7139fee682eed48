"""What a search is held against: uniform scaling, and a search that knows no hardware.

The third baseline, random networks, is the sampler of that name on the search's own task. None of
this touches a database: a caller asks for networks, evaluates them and remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from search.evolution import SearchTask
from search.objectives import FLOPS, QUALITY, Floats
from search.shape import ModelShape
from search.space import SubnetConfig


def uniform_networks(task: SearchTask, count: int) -> list[SubnetConfig]:
    """Feasible networks whose layers are all alike, cheapest first.

    Where there are more than `count`, those that spread evenly over the order of the first
    objective that is known, as a rule latency.
    """
    networks = list(task.space.uniform())
    feasible = [s for s, fits in zip(networks, task.are_feasible(networks), strict=True) if fits]
    if not feasible:
        return []
    order = np.argsort(task.known(feasible)[:, 0], kind="stable")
    places = np.linspace(0, len(feasible) - 1, min(count, len(feasible))).round().astype(int)
    return [feasible[order[place]] for place in places]


def hardware_agnostic(
    task: SearchTask,
    shape: ModelShape,
    flops_of: Callable[[SubnetConfig], int],
    *,
    budget_ratio: float,
) -> SearchTask:
    """The same search by FLOPs in place of latency: what is done when the device is unknown.

    A budget of a quarter of the latency is taken for a quarter of the FLOPs. What it finds is then
    judged by latency, as everything is.

    Args:
        flops_of: operations of a network at the size of input that counts.
        budget_ratio: the loosest budget as a share of the unsearched model's latency.
    """
    limit = budget_ratio * flops_of(SubnetConfig.full(shape))

    def known(subnets: Sequence[SubnetConfig]) -> Floats:
        return np.array([flops_of(s) for s in subnets], dtype=np.float64).reshape(-1, 1)

    def are_feasible(subnets: Sequence[SubnetConfig]) -> npt.NDArray[np.bool_]:
        return known(subnets)[:, 0] <= limit

    return replace(task, objectives=(FLOPS, QUALITY), known=known, are_feasible=are_feasible)
