"""A whole job in this process: the real runner, the real database, the real measuring."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from predictors.measuring import run_measuring_spec
from predictors.probe import probe_device
from predictors.spec import MeasuringSpec
from service.artifacts.artifacts import list_artifacts
from service.database.db import Database
from service.database.models import (
    ArtifactRow,
    Event,
    Job,
    MeasurementJob,
    Step,
    Upload,
    UploadFile,
)
from service.devices import measurement_jobs
from service.devices.devices import find_device, register_device
from service.jobs import jobs
from service.jobs.evaluations import Evaluation, list_evaluations
from service.jobs.events import list_events
from service.jobs.job_spec import JobSpec
from service.jobs.job_states import TERMINAL
from service.settings import Settings
from service.steps.queue import InMemoryQueue
from service.steps.step_types import NewStep
from service.store.protocol import ArtifactStore
from service.tenants.tenancy import DEFAULT_TENANT
from service.uploads.checks.contents import reading_of, summary_of
from service.uploads.checks.reading import read_here
from service.uploads.uploads import files_of
from tests.service.helpers import job_of, steps_of
from workers.runner import StepRunner

Result = dict[str, Any]
Measure = Callable[[MeasuringSpec], Result]

MAX_STEPS = 400


def its_own(_session: Session, step_id: str, _tried: Collection[str]) -> str:
    """Whose turn it is where tests look at one step: that one's, whatever else there is to do."""
    return step_id


class Workshop:
    """Runs the open steps of a job one after another and answers its measuring jobs.

    Args:
        measure: answers a measuring job; None measures on this machine.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ArtifactStore,
        measure: Measure | None = None,
    ) -> None:
        self.settings = settings
        self.database = database.for_tenant(DEFAULT_TENANT)
        self.store = store
        self.measure = measure or self.measure_here
        self._runner = StepRunner(
            settings, database=database, queue=InMemoryQueue(), store=store, turns=its_own
        )
        with self.database.write() as session:
            # An agent of a service may have registered it already.
            device = find_device(session, "this-cpu")
            if device is None:
                device = register_device(session, "this-cpu", probe_device().to_dict())
            self.device_id = device.id

    def upload(self, kind: str, paths: list[Path], summary: dict[str, Any] | None = None) -> str:
        """A finished upload of files, checked as the service checks it.

        Args:
            summary: of a data set, its task and columns; not given: labelled texts.
        """
        with self.database.write() as session:
            columns = {"text": "text", "label": "label"} if kind == "dataset" else None
            upload = Upload(kind=kind, summary=summary or columns)
            session.add(upload)
            session.flush()
            for path in paths:
                sha256, size_bytes = self.store.put(path), path.stat().st_size
                session.add(
                    UploadFile(
                        upload_id=upload.id, name=path.name, size_bytes=size_bytes, sha256=sha256
                    )
                )
            session.flush()
            files = files_of(session, upload.id)
            found = read_here(reading_of(self.store, upload, files))
            upload.summary = summary_of(upload, files, found)
            upload.state = "ready"
            return upload.id

    def submit(self, spec: dict[str, Any], first: NewStep = jobs.FIRST_STEP) -> str:
        checked = JobSpec.model_validate(spec)
        stored = checked.model_dump(mode="json")
        with self.database.write() as session:
            return jobs.create_job(
                session, stored, name=checked.name, seed=checked.seed, first=first
            ).id

    def run(self, job_id: str, run_step: Callable[[Step], None] | None = None) -> Job:
        """To the job's end. `run_step` runs one open step in its own way."""
        for _ in range(MAX_STEPS):
            job = job_of(self.database, job_id)
            if job.state in TERMINAL:
                return job
            step = self.open_step(job_id)
            if step is not None:
                (run_step or self.run_step)(step)
            else:
                self._answer_measuring_job()
        raise AssertionError(f"the job goes on after {MAX_STEPS} steps")

    def run_until(self, job_id: str, kind: str) -> Step:
        """The first step of this kind, still to be run."""
        for _ in range(MAX_STEPS):
            step = self.open_step(job_id)
            if step is None:
                self._answer_measuring_job()
            elif step.kind == kind:
                return step
            else:
                self.run_step(step)
        raise AssertionError(f"no step {kind}")

    def run_step(self, step: Step) -> str:
        return self._runner.run(step.id, "test:1:task")

    def open_step(self, job_id: str) -> Step | None:
        steps = steps_of(self.database, job_id)
        return next((s for s in steps if s.state in ("ready", "running")), None)

    def steps(self, job_id: str) -> list[Step]:
        return steps_of(self.database, job_id)

    def evaluations(self, job_id: str, source: str | None = None) -> list[Evaluation]:
        with self.database.read() as session:
            return list_evaluations(session, job_id, source)

    def artifacts(self, job_id: str) -> list[ArtifactRow]:
        with self.database.read() as session:
            return list_artifacts(session, job_id)

    def events(self, job_id: str) -> list[Event]:
        with self.database.read() as session:
            return list_events(session, job_id, after=0, limit=10_000)

    def measuring_jobs(self, job_id: str) -> list[MeasurementJob]:
        with self.database.read() as session:
            query = select(MeasurementJob).where(MeasurementJob.job_id == job_id)
            return list(session.scalars(query.order_by(MeasurementJob.created_at)))

    def measure_here(self, spec: MeasuringSpec) -> Result:
        def fetch(sha256: str, path: Path) -> None:
            shutil.copyfile(self.store.path(sha256), path)

        return run_measuring_spec(spec, fetch_blob=fetch).to_dict()

    def _answer_measuring_job(self) -> None:
        with self.database.write() as session:
            lease = measurement_jobs.claim(session, self.device_id, "agent", 600.0)
        assert lease is not None, "the job has neither a step to run nor anything to measure"
        result = self.measure(MeasuringSpec.from_dict(lease.spec))
        with self.database.write() as session:
            measurement_jobs.complete(session, lease.id, lease.token, result)


class Recorded:
    """A device that answers an equal request equally, so that two runs can be compared."""

    def __init__(self, measure: Measure | None = None) -> None:
        self.results: dict[str, Result] = {}
        self._measure = measure

    def __call__(self, spec: MeasuringSpec) -> Result:
        key = key_of(spec.to_dict())
        if key not in self.results:
            assert self._measure is not None, f"never measured: {key[:200]}"
            self.results[key] = json.loads(json.dumps(self._measure(spec)))
        return self.results[key]


def key_of(spec: dict[str, Any]) -> str:
    return json.dumps(spec, sort_keys=True)


def comparable(evaluations: list[Evaluation]) -> list[tuple[Any, ...]]:
    """What must be equal to the bit when a job is repeated."""
    return [
        (e.source, e.generation, e.index_in_generation, e.genotype, e.subnet, e.metrics)
        for e in evaluations
    ]
