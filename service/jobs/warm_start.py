"""Searching a supernet that an earlier job has trained: for another budget, device or workload."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from search.errors import InvalidInput
from search.space import SearchSpace
from service.database.models import Job, Step
from service.jobs.job_spec import JobSpec
from service.jobs.jobs import get_job
from service.uploads.uploads import files_of

FIELD = "supernet_of"


def trained_state(session: Session, job_id: str) -> dict[str, Any] | None:
    """What a job's first step of search was given; None while its supernet is not trained.

    Raises: InvalidInput when it was, and is kept no more.
    """
    if session.scalar(select(Job.swept_at).where(Job.id == job_id)) is not None:
        raise InvalidInput(FIELD, f"the supernet of {job_id} is gone, as it ended long ago")
    query = (
        select(Step.input)
        .where(Step.job_id == job_id, Step.kind == "search")
        .order_by(Step.created_at, Step.id)
        .limit(1)
    )
    return session.scalars(query).one_or_none()


def extended(job: Job, generations: int) -> JobSpec:
    """A job that searches the job's supernet for so many generations more: what the job evaluated
    is known to it, and not evaluated again."""
    spec = JobSpec.model_validate(job.spec)
    search = spec.search.model_copy(update={"generations": generations})
    return spec.model_copy(update={"supernet_of": job.id, "search": search})


def check_warm_start(session: Session, spec: JobSpec, space: SearchSpace) -> None:
    """Raises: InvalidInput when the earlier job's supernet cannot stand in for one of `spec`."""
    if spec.supernet_of is None:
        return
    job = get_job(session, spec.supernet_of, "search")
    if job is None:
        raise InvalidInput(FIELD, f"there is no search job {spec.supernet_of!r}")
    state = trained_state(session, job.id)
    if state is None:
        raise InvalidInput(FIELD, f"{job.id} has not trained its supernet (it is {job.state})")
    earlier = JobSpec.model_validate(job.spec)
    for part in ("model", "data"):
        mine, theirs = (
            {f.name: f.sha256 for f in files_of(session, getattr(s, part).upload)}
            for s in (spec, earlier)
        )
        if mine != theirs:
            raise InvalidInput(FIELD, f"{job.id} was trained with other files of {part!r}")
    if spec.task != earlier.task:
        raise InvalidInput(FIELD, f"{job.id} was trained for {earlier.task}")
    if spec.training.max_seq_len != earlier.training.max_seq_len:
        raise InvalidInput(
            FIELD, f"{job.id} cut its texts to {earlier.training.max_seq_len} tokens, as must this"
        )
    _check_within(space, SearchSpace.from_dict(state["space"]), job.id)


def _check_within(space: SearchSpace, trained: SearchSpace, job_id: str) -> None:
    """Widths that were never trained answer at random; precisions are not trained at all."""
    for gene in ("num_layers", "num_heads", "ffn_dim", "embed_dim"):
        extra = set(getattr(space, gene)) - set(getattr(trained, gene))
        if extra:
            raise InvalidInput(
                f"space.{gene}",
                f"{job_id} trained {list(getattr(trained, gene))}, not {sorted(extra)}",
            )
