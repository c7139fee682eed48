"""What a step's handler works with: its job, its input, the stores, and the wish to stop.

Every write goes through the step's token: once somebody else holds the step, it raises.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from predictors.key import PredictorKey, shape_key
from predictors.predictor import LatencyPredictor
from predictors.rows import LatencyRow
from search.errors import InvalidInput
from search.shape import ModelShape
from service.artifacts import blobs
from service.artifacts.signing_keys import sign_content
from service.database.db import Database
from service.database.models import Job
from service.devices import measurement_jobs, measurements, predictor_store
from service.devices.device_schemas import OnboardingSpec
from service.devices.devices import DeviceInfo, find_device
from service.jobs import evaluations, warm_start
from service.jobs.evaluations import Evaluation
from service.jobs.events import append_event
from service.jobs.job_spec import JobSpec
from service.jobs.job_states import TERMINAL
from service.jobs.jobs import get_job
from service.settings import Settings
from service.steps import steps
from service.steps.step_types import StepLease
from service.store.digest import digest_of
from service.store.protocol import ArtifactStore
from service.store.space import check_room
from service.telemetry import metrics
from service.uploads.uploads import files_of
from workers.heartbeat import Abort, AbortReason

PROGRESS_INTERVAL_SECONDS = 0.5


class JobContext:
    """Given to a handler, for one attempt of one step.

    Attributes:
        spec_json: the job's spec as it is stored; `spec` is the same, parsed.
        input: the step's input.
        scratch: an empty folder, deleted after the step.
    """

    def __init__(
        self,
        *,
        database: Database,
        settings: Settings,
        store: ArtifactStore,
        lease: StepLease,
        abort: Abort,
        scratch: Path,
    ) -> None:
        self._lease = lease
        self._abort = abort
        self._last_progress = -float("inf")
        self.settings = settings
        self._store = store
        self.scratch = scratch
        self.job_id = lease.job_id
        self.step_id = lease.step_id
        self.attempt = lease.attempts
        self.input = lease.input
        with database.read() as session:
            job = get_job(session, lease.job_id)
            assert job is not None, "a step's job exists as long as the step"
            self._database = database.for_tenant(job.tenant_id)
            self.spec_json: dict[str, Any] = job.spec
            self.seed = job.seed
            self._stage = job.stage

    @cached_property
    def spec(self) -> JobSpec:
        return JobSpec.model_validate(self.spec_json)

    @cached_property
    def onboarding_spec(self) -> OnboardingSpec:
        return OnboardingSpec.model_validate(self.spec_json)

    # --- stopping ---------------------------------------------------------------------------

    def should_abort(self) -> bool:
        """Asked between batches or evaluations: costs nothing, touches no database."""
        return self._abort.reason is not None

    def check_abort(self) -> None:
        """Raises: StepAborted when the handler should stop."""
        self._abort.check()

    # --- telling ----------------------------------------------------------------------------

    def progress(self, done: float, total: float, unit: str) -> None:
        """Show how far the stage is; written twice a second at most."""
        now = time.monotonic()
        if done < total and now - self._last_progress < PROGRESS_INTERVAL_SECONDS:
            return
        self._last_progress = now
        with self._guarded() as session:
            self._update_job(session, progress_done=done, progress_total=total, progress_unit=unit)

    def event(
        self,
        kind: str,
        message: str,
        data: Mapping[str, Any] | None = None,
        *,
        level: str = "info",
    ) -> None:
        with self._guarded() as session:
            append_event(session, self.job_id, kind, message, data, level=level)

    def stage(self, name: str) -> None:
        """Enter a stage, as the user sees it; nothing happens within the same stage."""
        if name == self._stage:
            return
        with self._guarded() as session:
            self._update_job(
                session, stage=name, progress_done=None, progress_total=None, progress_unit=None
            )
            append_event(session, self.job_id, "stage", name, {"stage": name})
        self._stage = name

    # --- files ------------------------------------------------------------------------------

    def put_blob(self, path: Path) -> str:
        """Store a file for this job and return its SHA-256."""
        digest = digest_of(path)
        with self._guarded() as session:
            blobs.refer(session, self.job_id, digest.sha256)
        self._store.put(path, digest.sha256)
        with self._database.write() as session:
            blobs.describe(session, digest)
        return digest.sha256

    def drop_blob(self, sha256: str) -> None:
        """This job needs it no more; it is deleted unless something else does."""
        with self._guarded() as session:
            blobs.drop(session, self._store, self.job_id, sha256)

    def sign(self, content: bytes) -> bytes:
        """A detached signature by this host's key, as it is written beside what it is of."""
        return sign_content(self.settings, self._database, content).dump()

    def check_room(self, needed_bytes: int) -> None:
        """Before work whose result could not be written: the step is put off instead.

        Raises: StoreFull.
        """
        check_room(self.scratch, needed_bytes, self.settings.reserve_bytes)

    def blob(self, sha256: str) -> Path:
        """A file with the blob's content, for reading only."""
        return self._store.path(sha256)

    def upload_files(self, upload_id: str) -> dict[str, str]:
        """SHA-256 of each file of a finished upload, by name."""
        with self._database.read() as session:
            return {file.name: file.sha256 for file in files_of(session, upload_id)}

    # --- evaluations ------------------------------------------------------------------------

    def record_evaluation(self, evaluation: Evaluation) -> None:
        """Store it, once for each source, generation and index."""
        self.record_evaluations([evaluation])

    def record_evaluations(self, found: Sequence[Evaluation]) -> None:
        """All of them or none."""
        with self._guarded() as session:
            for evaluation in found:
                if evaluations.record_evaluation(session, self.job_id, evaluation):
                    self._announce_evaluation(session, evaluation)
        metrics.EVALUATIONS.inc(len(found))

    def _announce_evaluation(self, session: Session, evaluation: Evaluation) -> None:
        data = {
            "source": evaluation.source,
            "generation": evaluation.generation,
            "index_in_generation": evaluation.index_in_generation,
            "fingerprint": evaluation.fingerprint,
            "metrics": evaluation.metrics,
        }
        message = f"{evaluation.source} network {evaluation.fingerprint}"
        append_event(session, self.job_id, "evaluation", message, data)

    def evaluations(self, source: str | None = None) -> list[Evaluation]:
        """Ordered by source, generation and index."""
        with self._database.read() as session:
            return evaluations.list_evaluations(session, self.job_id, source)

    def num_evaluations(self, sources: Sequence[str]) -> int:
        """Recorded so far for any of these."""
        with self._database.read() as session:
            return evaluations.count_evaluations(session, self.job_id, sources)

    def cached_quality(self, fingerprint: str, fidelity: str) -> dict[str, Any] | None:
        """Metrics of an equal network that was evaluated at the same fidelity: by this job, or by
        the one whose supernet it searches."""
        with self._database.read() as session:
            for job_id in filter(None, (self.job_id, self.spec_json.get("supernet_of"))):
                found = evaluations.cached_quality(session, job_id, fingerprint, fidelity)
                if found is not None:
                    return found
        return None

    def trained_state(self, job_id: str) -> dict[str, Any]:
        """State of an earlier job as it was when its supernet had been trained; the files that it
        names are kept for this job as well."""
        with self._guarded() as session:
            state = warm_start.trained_state(session, job_id)
            if state is None:
                raise InvalidInput("supernet_of", f"{job_id} has no trained supernet")
            blobs.adopt(session, self.job_id, job_id, blobs.hashes_in(state))
        return state

    def evaluations_of(self, job_id: str) -> list[Evaluation]:
        """Of an earlier job that has ended. None while it goes on: there could be more of them
        when this step is repeated."""
        with self._database.read() as session:
            job = get_job(session, job_id)
            if job is None or job.state not in TERMINAL:
                return []
            return evaluations.list_evaluations(session, job_id)

    # --- devices ----------------------------------------------------------------------------

    def device(self, name_or_id: str) -> DeviceInfo:
        with self._database.read() as session:
            device = find_device(session, name_or_id)
            if device is None:
                raise InvalidInput("device", f"no device is called {name_or_id!r}")
            return DeviceInfo(id=device.id, name=device.name, identity=device.identity)

    def measurement(self, measurement_job_id: str) -> dict[str, Any]:
        """The result of a finished measurement job."""
        with self._database.read() as session:
            job = measurement_jobs.get(session, measurement_job_id)
            if job is None or job.result is None:
                raise LookupError(f"{measurement_job_id} has no result")
            return job.result

    def save_predictor(
        self, device_id: str, predictor: LatencyPredictor, fit_report: Mapping[str, Any]
    ) -> str:
        """Keep it as the newest of its key and shape; its id."""
        with self._guarded() as session:
            return predictor_store.save_predictor(
                session,
                device_id,
                key=predictor.key,
                shape_key=shape_key(predictor.shape),
                payload=predictor.to_json(),
                fit_report=dict(fit_report),
                job_id=self.job_id,
            )

    def find_predictor(
        self, device_id: str, key: PredictorKey, shape: ModelShape, max_age_seconds: float
    ) -> tuple[LatencyPredictor, dict[str, Any]] | None:
        """The newest one with its fit report, unless it is too old or of another version."""
        with self._database.read() as session:
            found = predictor_store.find_predictor(session, device_id, key.text, shape_key(shape))
        if found is None or found.created_at < time.time() - max_age_seconds:
            return None
        try:
            return LatencyPredictor.from_json(found.payload), found.fit_report
        except InvalidInput:
            return None

    def source_predictors(self, key: PredictorKey, shape: ModelShape) -> list[LatencyPredictor]:
        """Predictors of other devices or runtimes for the same shape and precision."""
        with self._database.read() as session:
            payloads = predictor_store.source_payloads(session, key, shape_key(shape))
        sources = []
        for payload in payloads:
            try:
                sources.append(LatencyPredictor.from_json({**payload, "sources": []}))
            except InvalidInput:
                continue
        return sources

    def earlier_rows(
        self, device_id: str, key: PredictorKey, shape: ModelShape
    ) -> list[LatencyRow]:
        """What quiet sessions outside of this job measured on the device as it is now."""
        with self._database.read() as session:
            return measurements.latency_rows(
                session, device_id, key.text, shape_key(shape), not_of_job=self.job_id
            )

    # ----------------------------------------------------------------------------------------

    @contextmanager
    def _guarded(self) -> Iterator[Session]:
        with self._database.write() as session:
            try:
                steps.guard(session, self._lease)
            except steps.LeaseLost:
                self._abort.request(AbortReason.LOST)
                raise
            yield session

    def _update_job(self, session: Session, **values: Any) -> None:
        session.execute(
            update(Job).where(Job.id == self.job_id).values(**values, version=Job.version + 1)
        )
