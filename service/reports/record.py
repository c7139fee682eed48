"""What the database knows of a job, as far as a report tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from search.shape import ModelShape
from search.space import SubnetConfig
from service.artifacts.artifacts import list_artifacts
from service.database.models import ArtifactRow, EvaluationRow, Event, Job, MeasurementJob, Step
from service.jobs.job_spec import JobSpec

SEARCH, EARLIER = "search", "earlier"
TOLD_KINDS = (
    "state",
    "stage",
    "prepared",
    "onboarded",
    "budgets",
    "convergence",
    "teacher",
    "shortlist",
    "target",
)
MAX_WARNINGS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An evaluated network, without what only the sampler needs.

    Attributes:
        latencies_ms: predicted, one for each promise of the job.
        within_bounds: whether it was held to keep each promise; empty where a job of an earlier
            version did not say.
    """

    source: str
    generation: int
    index: int
    fingerprint: str
    quality: float
    latencies_ms: tuple[float, ...]
    upper_ms: float | None
    within_bounds: tuple[bool, ...]

    @classmethod
    def of(cls, row: Any) -> Self:
        metrics = row.metrics
        first = metrics["latency_ms"]
        return cls(
            source=row.source,
            generation=row.generation,
            index=row.index_in_generation,
            fingerprint=row.fingerprint,
            quality=metrics["quality"],
            latencies_ms=tuple(metrics.get("latencies_ms") or [first]),
            upper_ms=metrics.get("latency_upper_ms"),
            within_bounds=tuple(metrics.get("within_bounds") or ()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """A step without what it was given and what it made."""

    kind: str
    state: str
    attempts: int
    created_at: float
    started_at: float | None
    finished_at: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    """Read in one transaction. `report` is that of the job's last step but one, once it ran."""

    job: Job
    spec: JobSpec
    now: float
    events: Sequence[Event]
    warnings: Sequence[Event]
    found: Sequence[Found]
    steps: Sequence[StepTime]
    artifacts: Sequence[ArtifactRow]
    report: dict[str, Any] | None
    measured_shape: dict[str, Any] | None

    @classmethod
    def read(cls, session: Session, job: Job, now: float) -> Self:
        """Args:
        now: epoch seconds, to which the time of what goes on is counted.
        """
        events = select(Event).where(Event.job_id == job.id).order_by(Event.seq)
        warnings = events.where(Event.level.in_(("warning", "error")))
        return cls(
            job=job,
            spec=JobSpec.model_validate(job.spec),
            now=now,
            events=list(session.scalars(events.where(Event.kind.in_(TOLD_KINDS)))),
            warnings=list(session.scalars(warnings.limit(MAX_WARNINGS))),
            found=_found(session, job.id),
            steps=_steps(session, job.id),
            artifacts=list_artifacts(session, job.id),
            report=_report(session, job.id),
            measured_shape=_measured_shape(session, job.id),
        )

    def events_of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def told(self, kind: str) -> dict[str, Any]:
        """Data of the last event of a kind; empty where there is none."""
        return next((e.data for e in reversed(self.events) if e.kind == kind), {})

    @property
    def shape(self) -> ModelShape | None:
        """Of the model; None before it was read."""
        data = (
            (self.report or {}).get("shape")
            or self.told("prepared").get("shape")
            or self.measured_shape
        )
        return None if data is None else ModelShape.from_dict(data)

    @property
    def metric(self) -> str:
        told = (self.report or {}).get("metric") or self.told("prepared").get("metric")
        return (
            told or self.told("teacher").get("metric") or METRICS.get(self.spec.task, "accuracy")
        )

    @property
    def quality_range(self) -> tuple[float, float] | None:
        """Of guessing, and of a model that is always right."""
        told = self.told("prepared").get("quality_range")
        if told is None and self.report is not None:
            told = self.report.get("quality_range")
        if told is None and self.metric == "accuracy":
            data = (self.report or {}).get("data") or {}
            labels = data.get("labels") or self.told("prepared").get("labels")
            told = (1 / len(labels), 1.0) if labels else None
        return None if told is None else (told[0], told[1])

    @property
    def budgets_ms(self) -> list[float | None]:
        """Of each target; None while a share of a latency is not measured yet."""
        if self.report is not None:
            return [target["budget_ms"] for target in self.report["targets"]]
        asked = [target.budget_ms for target in self.spec.targets]
        told = self.told("budgets").get("budgets_ms") or []
        return list(told) if len(told) == len(asked) else asked

    @property
    def promise_of_target(self) -> list[int]:
        """The place of each target's latency among those of an evaluation."""
        told = self.told("budgets").get("promise_of_target")
        if told is not None and len(told) == len(self.spec.targets):
            return list(told)
        alike = [
            (target.device, target.workload, target.statistic) for target in self.spec.targets
        ]
        distinct = list(dict.fromkeys(alike))
        return [distinct.index(one) for one in alike]

    def found_by(self, *sources: str) -> list[Found]:
        """In the order in which they were proposed."""
        own = [found for found in self.found if found.source in sources]
        return sorted(own, key=lambda found: (found.generation, found.index))

    @property
    def sources(self) -> list[str]:
        """The search first, then what it is compared with."""
        known = {found.source for found in self.found}
        rest = sorted(known - {SEARCH, EARLIER})
        return [source for source in (SEARCH, EARLIER) if source in known] + rest


METRICS = {"language-modelling": "log_likelihood", "sentence-embedding": "cosine"}


def winners_of(session: Session, job_id: str) -> dict[str, list[int]]:
    """By the fingerprint of each network that was delivered, the indices of its targets."""
    found: dict[str, list[int]] = {}
    for index, target in enumerate((_report(session, job_id) or {}).get("targets", ())):
        if target.get("subnet") is not None:
            fingerprint = SubnetConfig.from_dict(target["subnet"]).fingerprint
            found.setdefault(fingerprint, []).append(index)
    return found


def _found(session: Session, job_id: str) -> list[Found]:
    columns = (
        EvaluationRow.source,
        EvaluationRow.generation,
        EvaluationRow.index_in_generation,
        EvaluationRow.fingerprint,
        EvaluationRow.metrics,
    )
    return list(
        map(Found.of, session.execute(select(*columns).where(EvaluationRow.job_id == job_id)))
    )


def _steps(session: Session, job_id: str) -> list[StepTime]:
    columns = [getattr(Step, name) for name in StepTime.__slots__]
    query = select(*columns).where(Step.job_id == job_id).order_by(Step.created_at, Step.id)
    return [StepTime(**row._mapping) for row in session.execute(query)]


def _report(session: Session, job_id: str) -> dict[str, Any] | None:
    query = (
        select(Step.output)
        .where(Step.job_id == job_id, Step.kind == "report", Step.state == "done")
        .order_by(Step.created_at.desc())
        .limit(1)
    )
    output = session.scalars(query).one_or_none()
    return None if output is None else output.get("report")


def _measured_shape(session: Session, job_id: str) -> dict[str, Any] | None:
    query = select(MeasurementJob.spec).where(MeasurementJob.job_id == job_id).limit(1)
    spec = session.scalars(query).one_or_none()
    return None if spec is None else spec.get("shape")
