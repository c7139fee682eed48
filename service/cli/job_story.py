"""What a job's events have told so far: how long its stages took, what was evaluated, what each
target has come to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from service.schemas import Event, JobState

SEARCHED = ("search", "earlier")
"""Sources of candidates that the search itself may choose; others are evaluated for comparison."""
CLOCK_RUNS_IN = (JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """An evaluated network: its quality, and its predicted latency for each promise."""

    source: str
    quality: float
    latencies_ms: tuple[float, ...]

    @property
    def is_candidate(self) -> bool:
        return self.source in SEARCHED

    def latency_ms(self, promise: int) -> float | None:
        return self.latencies_ms[promise] if promise < len(self.latencies_ms) else None


@dataclass(kw_only=True, slots=True)
class TargetStory:
    """A target, and what is known of it.

    Attributes:
        promise: the place of its device, workload and statistic among all that targets name.
        budget_ms: None while only a share of a latency is known that is yet to be measured.
        quality: of the network that was chosen, after its last training.
        measured_ms: of the exported file on the device.
        is_met: None as long as nothing was measured.
    """

    promise: int
    statistic: str
    budget_ms: float | None
    budget_ratio: float | None
    quality: float | None = None
    predicted_ms: float | None = None
    measured_ms: float | None = None
    is_met: bool | None = None


class StageClock:
    """Seconds that a job spent in each stage; none while it rests."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._stage: str | None = None
        self._since: float | None = None

    @property
    def stage(self) -> str | None:
        return self._stage

    def enter(self, stage: str, at: float) -> None:
        self.stop(at)
        self._stage = stage
        self._seconds.setdefault(stage, 0.0)
        self._since = at

    def stop(self, at: float) -> None:
        if self._stage is not None and self._since is not None:
            self._seconds[self._stage] += max(0.0, at - self._since)
        self._since = None

    def go_on(self, at: float) -> None:
        if self._stage is not None and self._since is None:
            self._since = at

    def seconds(self, now: float) -> dict[str, float]:
        """Of each stage that was entered, in that order; `now` in epoch seconds."""
        found = dict(self._seconds)
        if self._stage is not None and self._since is not None:
            found[self._stage] += max(0.0, now - self._since)
        return found


class JobStory:
    """Told event by event, from the first one on.

    Args:
        spec: as the server has it, with every default.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.task = str(spec.get("task", ""))
        self.clock = StageClock()
        self.points: list[Point] = []
        self.targets = list(_targets(spec))
        self._num_onboarded = 0
        self._promises_by_profile = _promises_by_profile(spec)

    def tell(self, event: Event) -> None:
        """Of another server's version there may be kinds, or data, that say nothing here."""
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            self._tell(event)

    def _tell(self, event: Event) -> None:
        if event.kind == "stage":
            self.clock.enter(str(event.data["stage"]), event.at)
        elif event.kind == "state":
            runs = event.data.get("state") in CLOCK_RUNS_IN
            (self.clock.go_on if runs else self.clock.stop)(event.at)
        elif event.kind == "evaluation":
            self._evaluated(event.data)
        elif event.kind == "onboarded":
            self._onboarded(event.data)
        elif event.kind in ("shortlist", "distilled", "unsearched", "target"):
            self._target_changed(event.kind, event.data)

    def best(self, target: TargetStory) -> Point | None:
        """The candidate of the best quality that is predicted to keep the target's budget."""
        if target.budget_ms is None:
            return None
        keeping = [
            point
            for point in self.points
            if point.is_candidate
            and (latency_ms := point.latency_ms(target.promise)) is not None
            and latency_ms <= target.budget_ms
        ]
        return max(keeping, key=lambda point: point.quality, default=None)

    def _evaluated(self, data: Mapping[str, Any]) -> None:
        metrics = data["metrics"]
        latencies_ms = metrics.get("latencies_ms") or [metrics["latency_ms"]]
        point = Point(
            source=str(data["source"]),
            quality=float(metrics["quality"]),
            latencies_ms=tuple(map(float, latencies_ms)),
        )
        if math.isfinite(point.quality) and all(map(math.isfinite, point.latencies_ms)):
            self.points.append(point)

    def _onboarded(self, data: Mapping[str, Any]) -> None:
        """Profiles are learnt in the order in which targets name them."""
        profile, self._num_onboarded = self._num_onboarded, self._num_onboarded + 1
        if profile >= len(self._promises_by_profile):
            return
        for target in self.targets:
            is_here = target.promise in self._promises_by_profile[profile]
            if is_here and target.budget_ms is None and target.budget_ratio is not None:
                target.budget_ms = target.budget_ratio * float(data["reference_ms"])

    def _target_changed(self, kind: str, data: Mapping[str, Any]) -> None:
        index = data.get("target")
        if not isinstance(index, int) or index >= len(self.targets):
            return
        target = self.targets[index]
        if kind == "target":
            target.is_met = bool(data.get("is_met", False))
            target.measured_ms = data.get("p50_ms")
            target.predicted_ms = data.get("predicted_ms", target.predicted_ms)
            target.budget_ms = data.get("budget_ms", target.budget_ms)
        elif kind == "shortlist":
            raced = max(data["raced"], key=lambda one: one["quality"], default=None)
            if raced is not None:
                target.quality, target.predicted_ms = raced["quality"], raced["predicted_ms"]
        elif kind == "distilled":
            target.quality = max(data["before"], data["quality"])
        else:
            target.quality = data["quality"]


def show_quality(task: str, quality: float) -> str:
    """As people read it; of a language model it is minus the logarithm of its perplexity."""
    if task == "language-modelling":
        return f"{math.exp(-quality):.2f}"
    return f"{quality:.3f}" if task == "sentence-embedding" else f"{quality:.1%}"


def quality_name(task: str) -> str:
    names = {"language-modelling": "perplexity", "sentence-embedding": "cosine"}
    return names.get(task, "accuracy")


def _targets(spec: Mapping[str, Any]) -> Iterator[TargetStory]:
    promises: list[Any] = []
    for target in _given(spec):
        promise = (target.get("device"), target.get("workload"), target.get("statistic"))
        if promise not in promises:
            promises.append(promise)
        yield TargetStory(
            promise=promises.index(promise),
            statistic=str(target.get("statistic", "p50")),
            budget_ms=target.get("budget_ms"),
            budget_ratio=target.get("budget_ratio"),
        )


def _promises_by_profile(spec: Mapping[str, Any]) -> list[set[int]]:
    """Promises of each device and workload, in the order in which these are learnt.

    Of a runtime that is chosen by the device nobody here knows how many profiles it makes, so
    whatever comes after it is left out.
    """
    profiles: list[Any] = []
    found: list[set[int]] = []
    for target, story in zip(_given(spec), _targets(spec), strict=True):
        workload = target.get("workload") or {}
        profile = (target.get("device"), workload)
        if profile not in profiles:
            if profiles and any(known[1].get("runtime") == "auto" for known in profiles):
                break
            profiles.append(profile)
            found.append(set())
        found[profiles.index(profile)].add(story.promise)
    return found


def _given(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    targets = spec.get("targets")
    return [t for t in targets if isinstance(t, Mapping)] if isinstance(targets, list) else []
