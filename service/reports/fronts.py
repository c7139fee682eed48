"""The pictures of a search: what was found, what it beat, and how fast it got there."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Any

from service.reports.charts import Axis, Chart, Guide, Role, Series, rounded
from service.reports.record import EARLIER, SEARCH, Found, JobRecord
from service.reports.words import QUALITY_WORDS, quality_axis, source_word

ROLES: dict[str, Role] = {
    SEARCH: "search",
    EARLIER: "earlier",
    "random": "random",
    "uniform": "uniform",
    "flops": "flops",
}
Place = tuple[float, float]
"""Latency in ms, and quality."""


def front_charts(record: JobRecord) -> list[Chart]:
    """Quality against latency, once for each promise that the job makes."""
    if not record.found:
        return []
    num_promises = max(record.promise_of_target, default=0) + 1
    return [_front_chart(record, promise) for promise in range(num_promises)]


def _front_chart(record: JobRecord, promise: int) -> Chart:
    told = _promise_words(record, promise)
    targets = [i for i, place in enumerate(record.promise_of_target) if place == promise]
    series = [
        one for source in record.sources for one in _of_source(record, source, promise, targets)
    ]
    series = [*_winners(record, targets), *_unsearched(record, promise), *series]
    metric = QUALITY_WORDS.get(record.metric, record.metric)
    return Chart(
        key="front" if promise == 0 else f"front-{promise}",
        title=f"Quality against latency{told}",
        caption=(
            f"Each dot is a network that was tried: its predicted latency, and its {metric} with "
            "inherited weights on the search split. Winners and the unsearched model stand where "
            "the device measured them, with their quality on the test split; a line joins a "
            "winner's prediction and its measurement."
        ),
        x=Axis(
            label=f"latency ({record.spec.targets[targets[0]].statistic})", unit="ms", is_log=True
        ),
        y=quality_axis(record.metric),
        series=series,
        guides=_budgets(record, targets),
    )


def _promise_words(record: JobRecord, promise: int) -> str:
    if max(record.promise_of_target, default=0) == 0:
        return ""
    target = record.spec.targets[record.promise_of_target.index(promise)]
    return f" on {target.device} in {target.workload.runtime}"


def _budgets(record: JobRecord, targets: Sequence[int]) -> list[Guide]:
    return [
        Guide(axis="x", value=rounded([budget])[0], label=f"budget of target {i}")
        for i in targets
        if (budget := record.budgets_ms[i]) is not None
    ]


def _of_source(
    record: JobRecord, source: str, promise: int, targets: Sequence[int]
) -> Iterator[Series]:
    """Points that keep a budget and points that do not, and the line of the best."""
    found = [f for f in record.found_by(source) if promise < len(f.latencies_ms)]
    if not found:
        return
    word, role = source_word(source), ROLES.get(source, "plain")
    within = [is_feasible(record, f, promise, targets) for f in found]
    feasible = [f for f, is_within in zip(found, within, strict=True) if is_within]
    # Which points of a baseline keep a budget tells nothing.
    own = feasible if source == SEARCH else found
    if own:
        yield _points(word, role, own, promise)
    front = front_of([(f.latencies_ms[promise], f.quality) for f in found])
    yield Series(
        label=f"{word}: front",
        mark="step",
        role=role,
        x=rounded([ms for ms, _ in front]),
        y=rounded([quality for _, quality in front]),
    )
    over = [f for f, is_within in zip(found, within, strict=True) if not is_within]
    if source == SEARCH and over:
        yield _points(f"{word}, over the budget", "infeasible", over, promise)


def _points(label: str, role: Role, found: Sequence[Found], promise: int) -> Series:
    return Series(
        label=label,
        mark="points",
        role=role,
        x=rounded([f.latencies_ms[promise] for f in found]),
        y=rounded([f.quality for f in found]),
        names=[f.fingerprint for f in found],
    )


def is_feasible(record: JobRecord, found: Found, promise: int, targets: Sequence[int]) -> bool:
    """Whether it was held to keep a budget when it was evaluated."""
    if promise < len(found.within_bounds):
        return found.within_bounds[promise]
    budgets = [record.budgets_ms[i] for i in targets]
    known = [budget for budget in budgets if budget is not None]
    highest = found.upper_ms if promise == 0 else None
    latency = found.latencies_ms[promise] if highest is None else highest
    return not known or latency <= max(known)


def _unsearched(record: JobRecord, promise: int) -> Iterator[Series]:
    """Only where the quality was judged, in the first promise's place."""
    if record.report is None or promise:
        return
    for key, label, role in (
        ("baseline", "unsearched, fp32", "unsearched"),
        ("quantized_only", "unsearched, int8", "unsearched-int8"),
    ):
        figures = record.report.get(key)
        if figures:
            yield Series(
                label=f"{label} (measured)",
                mark="points",
                role=role,
                x=rounded([figures["p50_ms"]]),
                y=rounded([figures["quality"]]),
                names=[label],
            )


def _winners(record: JobRecord, targets: Sequence[int]) -> Iterator[Series]:
    """Where each was predicted to be, where it is, and the way between."""
    found = [
        (i, figures)
        for i in targets
        if record.report is not None
        and (figures := record.report["targets"][i]).get("quality") is not None
    ]
    if not found:
        return
    names = [f"target {i}" for i, _ in found]
    measured = rounded([figures[f"{record.spec.targets[i].statistic}_ms"] for i, figures in found])
    qualities = rounded([figures["quality"] for _, figures in found])
    predicted = rounded(
        [_predicted_ms(figures, ms) for (_, figures), ms in zip(found, measured, strict=True)]
    )
    searched = rounded([_searched_quality(figures) for _, figures in found])
    yield Series(
        label="winners (measured)",
        mark="points",
        role="winner",
        x=measured,
        y=qualities,
        names=names,
    )
    yield Series(
        label="winners, predicted to measured",
        mark="links",
        role="winner",
        x=predicted,
        y=searched,
        x_to=measured,
        y_to=qualities,
        names=names,
    )


def _predicted_ms(figures: dict[str, Any], measured_ms: float) -> float:
    predicted: float | None = figures.get("predicted_ms")
    return measured_ms if predicted is None else predicted


def _searched_quality(figures: dict[str, Any]) -> float:
    """Of the network as the search found it; of one that it did not find, as delivered."""
    stages = [stage for stage in figures["stages"] if stage["stage"] == "search"]
    quality: float = (stages[-1] if stages else figures)["quality"]
    return quality


def front_of(places: Sequence[Place]) -> list[Place]:
    """Those that no other is faster and better than, fastest first."""
    front: list[Place] = []
    for ms, quality in sorted(places, key=lambda place: (place[0], -place[1])):
        if not front or quality > front[-1][1]:
            front.append((ms, quality))
    return front


def hypervolume_chart(record: JobRecord) -> Chart | None:
    """How much of the rectangle up to a perfect model the networks cover, one by one."""
    limits = record.quality_range
    budgets = [
        budget
        for i, budget in enumerate(record.budgets_ms)
        if budget is not None and record.promise_of_target[i] == 0
    ]
    if limits is None or not budgets or not record.found_by(SEARCH):
        return None
    series = []
    for source in record.sources:
        if source == EARLIER:
            continue
        own = record.found_by(source)
        known = record.found_by(EARLIER) if source == SEARCH else []
        volumes = hypervolumes(
            [(f.latencies_ms[0], f.quality) for f in [*known, *own]],
            slowest_ms=max(budgets),
            chance=limits[0],
            best=limits[1],
        )[len(known) :]
        rises = _rises(volumes)
        series.append(
            Series(
                label=source_word(source),
                mark="step",
                role=ROLES.get(source, "plain"),
                x=[float(place + 1) for place in rises],
                y=rounded([volumes[place] for place in rises]),
            )
        )
    return Chart(
        key="hypervolume",
        title="Hypervolume over evaluations",
        caption=(
            "The share of the rectangle between guessing at the loosest budget and a perfect "
            "model at no latency that is covered so far; higher sooner is better."
        ),
        x=Axis(label="networks evaluated", low=0, is_whole=True),
        y=Axis(label="hypervolume"),
        series=series,
    )


def _rises(volumes: Sequence[float]) -> list[int]:
    """Places of the first value, of every value that is higher than the one before, and of the
    last: between them nothing changed."""
    last = len(volumes) - 1
    return [i for i, v in enumerate(volumes) if i in (0, last) or v > volumes[i - 1]]


def hypervolumes(
    places: Sequence[Place], *, slowest_ms: float, chance: float, best: float
) -> list[float]:
    """After each of the places, as a share of the whole rectangle."""
    front: list[Place] = []
    whole = slowest_ms * (best - chance)
    area, areas = 0.0, []
    for ms, quality in places:
        if ms < slowest_ms and quality > chance and _joins(front, (ms, quality)):
            area = _area(front, slowest_ms, chance) / whole
        areas.append(area)
    return areas


def _joins(front: list[Place], place: Place) -> bool:
    """Whether it belongs to the front, which has it then, and no longer what it beats."""
    at = bisect.bisect_right(front, place)
    before = front[at - 1] if at else None
    if before is not None and before[1] >= place[1]:
        return False
    if before is not None and before[0] == place[0]:
        at -= 1
        del front[at]
    end = at
    while end < len(front) and front[end][1] <= place[1]:
        end += 1
    front[at:end] = [place]
    return True


def _area(front: Sequence[Place], slowest_ms: float, chance: float) -> float:
    area, floor = 0.0, chance
    for ms, quality in front:
        area += (slowest_ms - ms) * (quality - floor)
        floor = quality
    return area
