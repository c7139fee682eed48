from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from predictors.device import Device as DeviceIdentity
from predictors.key import predictor_key
from predictors.predictor import LatencyPredictor
from predictors.rows import LatencyRow
from predictors.spec import MeasuringSpec
from search.errors import InvalidInput
from service.database.db import Database
from service.database.models import BlobReference, BlobRow
from service.devices import measurement_jobs
from service.jobs import events
from service.settings import Settings
from service.steps.step_types import LeaseLost, StepLease
from service.store.filesystem import FilesystemStore
from service.store.protocol import BlobNotFound, StoreFull
from tests.service.helpers import (
    claimed,
    create_device,
    create_job,
    create_measuring_job,
    job_of,
    let_leases_run_out,
    measurement_of,
)
from tests.service.measuring import IDENTITY, SHAPE, WORKLOAD, answer, subnet
from tests.workers.small_steps import make_evaluation
from workers.context import JobContext
from workers.heartbeat import Abort, AbortReason, StepAborted


def make_context(
    database: Database, settings: Settings, lease: StepLease, scratch: Path
) -> JobContext:
    return JobContext(
        database=database,
        settings=settings,
        store=FilesystemStore(settings.blobs_dir),
        lease=lease,
        abort=Abort(),
        scratch=scratch,
    )


@pytest.fixture
def context(database: Database, settings: Settings, tmp_path: Path) -> JobContext:
    lease = claimed(database, create_job(database, seed=3))
    return make_context(database, settings, lease, tmp_path)


def test_a_handler_knows_its_job(context: JobContext) -> None:
    assert (context.seed, context.input, context.spec_json) == (3, {"n": 0}, {"task": "x"})


def test_an_evaluation_is_stored_and_told_once(context: JobContext, database: Database) -> None:
    for _ in range(2):
        context.record_evaluation(make_evaluation(0))
    context.record_evaluation(make_evaluation(1))
    assert [e.index_in_generation for e in context.evaluations("search")] == [0, 1]
    assert context.evaluations("random") == []
    assert context.cached_quality("f1", "600") == {"quality": 0.6}
    with database.read() as session:
        told = [e for e in events.list_events(session, context.job_id) if e.kind == "evaluation"]
    assert [e.data["metrics"] for e in told] == [{"quality": 0.5}, {"quality": 0.6}]


def test_progress_is_throttled_but_its_end_is_not(context: JobContext, database: Database) -> None:
    for done in (1, 2, 3):
        context.progress(done, 10, "batches")
    assert job_of(database, context.job_id).progress_done == 1
    context.progress(10, 10, "batches")
    assert job_of(database, context.job_id).progress_done == 10


def test_every_write_of_a_lost_step_is_refused(context: JobContext, database: Database) -> None:
    device = create_device(database)
    let_leases_run_out(database)
    claimed(database, context.job_id)
    before = job_of(database, context.job_id)
    for write in (
        lambda: context.event("note", "late"),
        lambda: context.stage("late"),
        lambda: context.progress(1, 1, "late"),
        lambda: context.record_evaluation(make_evaluation(0)),
        lambda: context.save_predictor(device.id, small_predictor(), {}),
    ):
        with pytest.raises(LeaseLost):
            write()
    after = job_of(database, context.job_id)
    assert (after.version, after.last_event_seq) == (before.version, before.last_event_seq)
    assert context.should_abort()
    with pytest.raises(StepAborted):
        context.check_abort()


def test_the_first_reason_to_abort_stays() -> None:
    abort = Abort()
    abort.check()
    abort.request(AbortReason.CANCEL)
    abort.request(AbortReason.SHUTDOWN)
    with pytest.raises(StepAborted) as caught:
        abort.check()
    assert caught.value.reason is AbortReason.CANCEL


def test_a_handler_reads_its_measurements_and_keeps_a_predictor(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    job_id, device_id = create_measuring_job(database)
    with database.write() as session:
        lease = measurement_jobs.claim(session, device_id, "agent", 60.0)
        assert lease is not None
        spec = MeasuringSpec.from_dict(lease.spec)
        measurement_jobs.complete(session, lease.id, lease.token, answer(spec))
    context = make_context(database, settings, claimed(database, job_id), tmp_path)

    measured = context.measurement(context.input["measurement_job_id"])
    assert measured == measurement_of(database, job_id).result
    device = context.device("this-cpu")
    assert (device.id, device.identity["num_cores"]) == (device_id, 2)
    predictor = small_predictor()
    forever = float("inf")
    assert context.find_predictor(device.id, predictor.key, SHAPE, forever) is None
    context.save_predictor(device.id, predictor, {"mape": 0.1})
    context.save_predictor(device.id, predictor, {"mape": 0.2})
    found = context.find_predictor(device.id, predictor.key, SHAPE, forever)
    assert found is not None
    assert found[0].to_json() == predictor.to_json()
    assert found[1] == {"mape": 0.2}
    assert context.find_predictor(device.id, predictor.key, SHAPE, 0.0) is None


def test_rows_of_other_jobs_and_predictors_of_other_devices_are_at_hand(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    measured_job, device_id = create_measuring_job(database)
    with database.write() as session:
        lease = measurement_jobs.claim(session, device_id, "agent", 60.0)
        assert lease is not None
        spec = MeasuringSpec.from_dict(lease.spec)
        measurement_jobs.complete(session, lease.id, lease.token, answer(spec))
    key = predictor_key(DeviceIdentity.from_dict(IDENTITY), WORKLOAD, "fp32")
    own = make_context(database, settings, claimed(database, measured_job), tmp_path / "own")
    assert own.earlier_rows(device_id, key, SHAPE) == []  # it brings them itself
    other_job = create_job(database)
    other = make_context(database, settings, claimed(database, other_job), tmp_path / "other")
    (row,) = other.earlier_rows(device_id, key, SHAPE)
    assert (row.median_ms, row.anchors_ms) == (2.0, (10.0, 9.0, 8.0))

    predictor = small_predictor()
    other.save_predictor(device_id, predictor, {})
    assert other.source_predictors(predictor.key, SHAPE) == []
    stranger = replace(predictor.key, device_fingerprint="another")
    (source,) = other.source_predictors(stranger, SHAPE)
    assert source.key == predictor.key


def small_predictor() -> LatencyPredictor:
    rows = [
        LatencyRow(
            subnet=subnet(1, ffn_dim=width),
            batch_size=1,
            seq_len=8,
            median_ms=1 + width / 8,
            p95_ms=2 + width / 8,
            anchors_ms=(10.0,),
        )
        for width in (8, 16, 24, 32)
    ]
    key = predictor_key(DeviceIdentity.from_dict(IDENTITY), WORKLOAD, "fp32")
    return LatencyPredictor.fit(rows, key=key, shape=SHAPE, macs_per_byte=4.0)


def test_what_is_not_there_is_told(context: JobContext) -> None:
    with pytest.raises(InvalidInput, match="toaster"):
        context.device("toaster")
    with pytest.raises(LookupError):
        context.measurement("mj_unknown")


# --- files --------------------------------------------------------------------------------------


def put(context: JobContext, content: bytes) -> str:
    path = context.scratch / "file"
    path.write_bytes(content)
    return context.put_blob(path)


def test_a_stored_file_is_the_jobs_and_described(context: JobContext, database: Database) -> None:
    sha256 = put(context, b"weights")
    assert context.blob(sha256).read_bytes() == b"weights"
    with database.read() as session:
        assert session.get(BlobReference, (context.job_id, sha256)) is not None
        row = session.get_one(BlobRow, sha256)
        assert (row.size_bytes, row.chunks) == (7, [sha256])


def test_a_checkpoint_that_another_job_wrote_too_outlives_the_first(
    context: JobContext, database: Database, settings: Settings, tmp_path: Path
) -> None:
    """Two jobs of one seed write the same bytes; one of them goes on before the other."""
    lease = claimed(database, create_job(database, seed=3))
    (tmp_path / "two").mkdir()
    twin = make_context(database, settings, lease, tmp_path / "two")
    sha256 = put(context, b"checkpoint")
    assert put(twin, b"checkpoint") == sha256
    context.drop_blob(sha256)
    assert twin.blob(sha256).read_bytes() == b"checkpoint"
    twin.drop_blob(sha256)
    with pytest.raises(BlobNotFound):
        twin.blob(sha256)


def test_a_lost_step_neither_stores_nor_deletes(context: JobContext, database: Database) -> None:
    kept = put(context, b"kept")
    let_leases_run_out(database)
    claimed(database, context.job_id)
    for write in (lambda: put(context, b"late"), lambda: context.drop_blob(kept)):
        with pytest.raises(LeaseLost):
            write()
    with database.read() as session:
        assert list(session.scalars(select(BlobRow.sha256))) == [kept]
    assert context.blob(kept).read_bytes() == b"kept"


def test_a_file_for_which_there_is_no_room_leaves_the_step_its_name_alone(
    context: JobContext, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is put off and stores it then: the name waits for it."""
    crowded = FilesystemStore(context.scratch / "blobs", reserve_bytes=2**62)
    with monkeypatch.context() as patched:
        patched.setattr(context, "_store", crowded)
        with pytest.raises(StoreFull):
            put(context, b"weights")
    with database.read() as session:
        (row,) = session.scalars(select(BlobRow))
        assert row.size_bytes is None
    assert put(context, b"weights") == row.sha256
