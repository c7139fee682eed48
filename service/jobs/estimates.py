"""How long a job will take, by what earlier jobs of the tenant took here.

A stage's seconds grow with its work: rows times epochs times FLOPs in training, networks in the
search, profiles in onboarding. The rate is the median over earlier jobs of the same task. Where
there was none, nothing is known, and nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from search.costs import flops
from search.errors import InvalidInput
from search.shape import ModelShape
from search.space import SubnetConfig
from service.database.db import epoch_now
from service.database.models import Event, Job, Upload
from service.jobs.job_spec import JobSpec
from service.jobs.job_states import GOING
from service.jobs.jobs import SEARCH
from service.jobs.stages import STAGES, stages_of

NUM_EARLIER = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How large a job is, by what its stages' work grows with.

    Attributes:
        row_flops: of the unsearched model, for one row.
    """

    spec: JobSpec
    num_rows: int
    row_flops: float

    @classmethod
    def of(cls, spec: JobSpec, shape: ModelShape, num_rows: int) -> Scale:
        seq_len = (
            shape.num_patches + shape.num_prefix_tokens
            if shape.reads_images
            else spec.training.max_seq_len
        )
        row_flops = flops(shape, SubnetConfig.full(shape), seq_len=seq_len)
        return cls(spec=spec, num_rows=num_rows, row_flops=row_flops)

    def work(self, stage: str) -> float:
        """In units of the stage: only ratios of two jobs mean anything."""
        spec = self.spec
        pass_flops = self.num_rows * self.row_flops
        num_searches = 1 + len(spec.search.baselines)
        rows_read = min(self.num_rows, spec.search.fidelity_rows)
        work = {
            "teacher": spec.training.teacher_epochs * pass_flops,
            "supernet": spec.training.supernet_epochs
            * (2 + spec.training.num_random)
            * pass_flops,
            "onboard": spec.measuring.num_networks * spec.measuring.rounds,
            "search": num_searches * spec.search.num_evaluations * rows_read * self.row_flops,
            "finish": len(spec.targets) * spec.training.distill_epochs * pass_flops,
        }
        return work.get(stage, 1.0)

    @property
    def stages(self) -> Sequence[str]:
        """That the job goes through."""
        return stages_of(self.spec.supernet_of)


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Seconds of each stage, in their order; None where no earlier job tells."""

    seconds: Mapping[str, float | None]
    num_earlier_jobs: int

    @property
    def total_seconds(self) -> float | None:
        known = [s for s in self.seconds.values() if s is not None]
        return sum(known) if len(known) == len(self.seconds) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Seconds of each stage for a unit of its work; a stage that nobody went through is left
    out."""

    seconds_per_work: Mapping[str, float]
    num_earlier_jobs: int

    @classmethod
    def of_task(cls, session: Session, task: str) -> Rates:
        """By the session's tenant's last jobs of the task."""
        rates: dict[str, list[float]] = {stage: [] for stage in STAGES}
        num_jobs = 0
        for job in _earlier_jobs(session, task):
            earlier = scale_of(session, job)
            if earlier is None:
                continue
            num_jobs += 1
            for stage, seconds in _seconds_of_stages(session, job).items():
                if stage in rates:
                    rates[stage].append(seconds / max(earlier.work(stage), 1e-9))
        medians = {stage: median(found) for stage, found in rates.items() if found}
        return cls(seconds_per_work=medians, num_earlier_jobs=num_jobs)

    def estimate(self, scale: Scale) -> Estimate:
        rates = self.seconds_per_work
        return Estimate(
            seconds={
                stage: rates[stage] * scale.work(stage) if stage in rates else None
                for stage in scale.stages
            },
            num_earlier_jobs=self.num_earlier_jobs,
        )


RatesOf = Callable[[Session, str], Rates]
"""Of a task."""


def estimate(session: Session, scale: Scale) -> Estimate:
    """What a job of this size would take."""
    return Rates.of_task(session, scale.spec.task).estimate(scale)


def has_finish(job: Job) -> bool:
    """Whether anything can be said of when it will end."""
    return job.state in GOING and job.stage in STAGES


def estimated_finish(session: Session, job: Job, rates_of: RatesOf) -> float | None:
    """Epoch seconds; None while it does not run, or nothing like it has."""
    if not has_finish(job):
        return None
    scale = scale_of(session, job)
    if scale is None or job.stage is None:
        return None
    seconds = rates_of(session, scale.spec.task).estimate(scale).seconds
    later = scale.stages[scale.stages.index(job.stage) + 1 :] if job.stage in seconds else []
    left = [seconds[stage] for stage in later]
    now_seconds = seconds.get(job.stage)
    if now_seconds is None or None in left:
        return None
    done = (job.progress_done or 0.0) / job.progress_total if job.progress_total else 0.0
    now = session.execute(select(epoch_now())).scalar_one()
    return float(now + now_seconds * (1.0 - min(1.0, done)) + sum(s for s in left if s))


def scale_of(session: Session, job: Job) -> Scale | None:
    """None where the job is of another version, or its uploads are gone."""
    try:
        spec = JobSpec.model_validate(job.spec)
        model = session.get(Upload, spec.model.upload)
        data = session.get(Upload, spec.data.upload)
        if model is None or data is None:
            return None
        shape = ModelShape.from_dict({"num_labels": 2, **(model.summary or {})["shape"]})
        return Scale.of(spec, shape, int((data.summary or {})["num_rows"]))
    except (ValidationError, InvalidInput, KeyError):
        return None


def _earlier_jobs(session: Session, task: str) -> Sequence[Job]:
    query = (
        select(Job)
        .where(
            Job.kind == SEARCH,
            Job.state == "succeeded",
            Job.spec["task"].as_string() == task,
        )
        .order_by(Job.created_at.desc(), Job.id.desc())
        .limit(NUM_EARLIER)
    )
    return session.scalars(query).all()


def _seconds_of_stages(session: Session, job: Job) -> dict[str, float]:
    """A stage that was entered again, after a miss, counts with all of its times."""
    query = select(Event.data, Event.at).where(Event.job_id == job.id, Event.kind == "stage")
    entered = [(data["stage"], at) for data, at in session.execute(query.order_by(Event.seq))]
    assert job.finished_at is not None
    ends = [at for _, at in entered[1:]] + [job.finished_at]
    seconds: dict[str, float] = {}
    for (stage, began), ended in zip(entered, ends, strict=True):
        seconds[stage] = seconds.get(stage, 0.0) + ended - began
    return seconds
