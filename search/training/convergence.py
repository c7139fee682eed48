"""Signs that a supernet has converged, and a warning where it cannot.

Quality of the largest, the smallest and three subnets between, always the same ones, against the
teacher's: a supernet whose largest subnet lags behind its teacher is not to be searched yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search.costs import num_params
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig
from search.training.sampling import Sampling, updates_per_choice
from search.training.tasks import Task

BETWEEN = {"lower": 0.25, "middle": 0.5, "upper": 0.75}
SETTLED_GAIN = 0.005
"""Less than half a point gained over the last quarter of the training: nothing moves any more."""
FEWEST_UPDATES = 60.0
"""Of each choice, under which a warning is due; see `benchmarks.ablation`."""


def reference_subnets(space: SearchSpace, shape: ModelShape) -> dict[str, SubnetConfig]:
    """The five by name, smallest first, in fp32; fewer where the space has fewer.

    Those between are uniform ones, at a quarter, a half and three quarters of the way from the
    smallest one's parameters to the largest one's.
    """
    smallest, largest = (s.with_precision("fp32") for s in (space.smallest, space.largest))
    low, high = num_params(shape, smallest), num_params(shape, largest)
    uniform = {s.with_precision("fp32") for s in space.uniform()} - {smallest, largest}
    chosen = {"smallest": smallest}
    for name, share in BETWEEN.items():
        wanted = low + share * (high - low)
        left = uniform - set(chosen.values())
        if left:
            # The fingerprint settles ties: a set has no order.
            chosen[name] = min(
                left, key=lambda s: (abs(num_params(shape, s) - wanted), s.fingerprint)
            )
    return chosen | {"largest": largest}


def begin_report(space: SearchSpace, shape: ModelShape, teacher_quality: float) -> dict[str, Any]:
    """An account of a training as plain data; points are added by `with_point`.

    Args:
        teacher_quality: on the same rows as the subnets' are going to be measured on.
    """
    subnets = reference_subnets(space, shape)
    return {
        "teacher": teacher_quality,
        "subnets": {name: subnet.to_dict() for name, subnet in subnets.items()},
        "points": [],
    }


def with_point(
    report: Mapping[str, Any], step: int, quality_of: Callable[[SubnetConfig], float]
) -> dict[str, Any]:
    """With the quality of each of the five after so many steps, and what follows from it.

    `gap` is how far each is below the teacher (negative: above it), `is_settled` whether none
    gained more than `SETTLED_GAIN` over the last quarter of the steps.
    """
    qualities = {
        name: quality_of(SubnetConfig.from_dict(data)) for name, data in report["subnets"].items()
    }
    points = [*report["points"], {"step": step, **qualities}]
    return {
        **report,
        "points": points,
        "gap": {name: report["teacher"] - quality for name, quality in qualities.items()},
        "is_settled": _is_settled(points),
    }


def _is_settled(points: Sequence[Mapping[str, float]]) -> bool:
    last = points[-1]
    before = [point for point in points if point["step"] <= 0.75 * last["step"]]
    if last["step"] == 0 or not before:
        return False
    return all(last[name] - before[-1][name] <= SETTLED_GAIN for name in last if name != "step")


def describe(report: Mapping[str, Any], task: Task) -> str:
    """The last point, in one line for a person."""
    last = report["points"][-1]
    named = [f"{name} {task.show(value)}" for name, value in last.items() if name != "step"]
    return f"teacher {task.show(report['teacher'])}; subnets: {', '.join(named)}"


def budget_warning(space: SearchSpace, sampling: Sampling, total_steps: int) -> str | None:
    """What to say before a training that is too short for its space; None where it is not.

    The same subnet lost 3 points when its space grew from 27 to 11,232 networks at an equal
    budget (AutoDistil, arXiv 2201.12507, table 5).
    """
    updates = updates_per_choice(space, sampling, total_steps)
    if updates >= FEWEST_UPDATES:
        return None
    factor = FEWEST_UPDATES / max(updates, 1.0)
    return (
        f"the space of {space.num_networks:,} networks is wide for {total_steps} steps of elastic "
        f"training: its rarest choice is trained {updates:.0f} times, {FEWEST_UPDATES:.0f} are "
        f"good. Train {factor:.1f} times as long, or choose the preset 'small'"
    )
