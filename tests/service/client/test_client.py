"""What both clients offer, against the real service."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from search.errors import InvalidInput
from service.client import AsyncClient, Client, sha256_of
from service.client.client import Api
from service.database.db import Database
from service.jobs.evaluations import Evaluation, record_evaluation
from service.schemas import EventPage, Job, JobState
from service.settings import Settings
from tests.search.model.folders import write_model
from tests.service.client.scripted import Call, answers, job, losing_answers, scripted
from tests.service.helpers import create_job
from tests.service.serving import listening, upload_both, write_data

Connect = Callable[..., Call]

METHODS = [name for name in vars(Api) if not name.startswith("_")]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_shows_its_own_arguments_and_help(name: str) -> None:
    with Client("http://127.0.0.1:9") as client:
        method = getattr(client, name)
        assert "self" not in inspect.signature(method).parameters
        assert not inspect.iscoroutinefunction(method)


def test_a_job_is_submitted_found_and_stopped(
    connect: Connect, settings: Settings, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "model")
    data = write_data(tmp_path / "data.csv")
    with listening(settings) as server:
        call = connect(*server)
        spec = {
            "model": {"upload": call("upload_folder", model).id},
            "data": {"upload": call("upload_file", data).id},
            "targets": [{"budget_ratio": 0.5, "workload": {"seq_len": 16}}],
            "training": {"max_seq_len": 16},
        }
        ids = [call("submit", spec).id for _ in range(3)]
        call("cancel", ids[0])
        assert call("wait", ids[0]).state is JobState.CANCELLED
        assert [job.id for job in call("jobs", limit=2)] == ids[:0:-1]
        assert call("events", ids[0])[-1].data["state"] == "cancelled"
        assert call("events", ids[0]) == call("stream", ids[0])
        assert {device.name for device in call("devices")} == {"this-cpu"}


def test_a_job_whose_answers_were_lost_is_made_once(
    connect: Connect, settings: Settings, tmp_path: Path
) -> None:
    with listening(settings) as (url, key):
        with Client(url, key) as client:
            spec = upload_both(client, tmp_path)
        with losing_answers(url, 3) as lossy:
            job = connect(lossy, key)("submit", spec)
        assert [found.id for found in connect(url, key)("jobs")] == [job.id]


def test_webhooks_are_made_changed_tested_and_deleted(
    connect: Connect, settings: Settings
) -> None:
    with listening(settings) as server:
        call = connect(*server)
        made = call("create_webhook", "https://example.com/hook", kinds=["job.failed"])
        assert made.secret.startswith("whsec_")
        assert call("change_webhook", made.id, is_active=False).kinds == ["job.failed"]
        assert call("rotate_webhook_secret", made.id).secret != made.secret
        sent = call("send_test_webhook", made.id)
        assert [found.id for found in call("iter_webhook_deliveries", made.id)] == [sent.id]
        assert call("webhooks") == [call("webhook", made.id)]
        call("delete_webhook", made.id)
        assert call("webhooks") == []
        log = call("iter_audit_log", limit=2)
        assert [line.action.partition(" ")[0] for line in log] == [
            "DELETE",
            *["POST"] * 2,
            "PATCH",
            "POST",
        ]


def test_everything_of_a_list_comes_page_by_page(
    connect: Connect, settings: Settings, database: Database
) -> None:
    ids = [create_job(database) for _ in range(7)]
    with listening(settings) as server:
        call = connect(*server)
        for page_size in (2, 7, 100):
            assert [job.id for job in call("iter_jobs", page_size=page_size)] == ids[::-1]
        assert call("iter_jobs", states=[JobState.FAILED]) == []


def test_only_the_pages_that_are_needed_are_fetched() -> None:
    first = answers({"items": [job(), job()], "next_cursor": "c1"})
    with scripted(first) as server, Client(server.url) as client:
        for _, found in zip(range(2), client.iter_jobs(label=["team=a", "x"]), strict=False):
            assert found.id == "j"
    assert server.asked[0].path == "/v1/search-jobs?limit=100&label=team%3Da&label=x"


def test_many_calls_of_one_event_loop_go_side_by_side(
    settings: Settings, database: Database
) -> None:
    ids = [create_job(database) for _ in range(20)]

    async def ask(url: str, key: str) -> list[Job]:
        async with AsyncClient(url, key) as client:
            return await asyncio.gather(*(client.job(job_id) for job_id in ids))

    with listening(settings) as server:
        assert [job.id for job in asyncio.run(ask(*server))] == ids


def test_what_is_wrong_with_a_folder_is_found_before_anything_is_sent(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="pickle"):
        connect("http://127.0.0.1:9")("upload_folder", tmp_path)


def test_labels_are_added_to_those_of_the_spec(connect: Connect) -> None:
    with scripted(answers(job())) as server:
        call = connect(server.url)
        call("submit", {"labels": {"a": "1"}}, labels={"b": "2"})
    assert server.asked[0].body == b'{"labels": {"a": "1", "b": "2"}}'


def test_a_dry_run_tells_what_a_job_would_come_to(
    connect: Connect, settings: Settings, tmp_path: Path
) -> None:
    with listening(settings) as (url, key):
        with Client(url, key) as client:
            spec = upload_both(client, tmp_path)
        call = connect(url, key)
        found = call("dry_run", spec)
        assert int(found.num_networks) > 1
        assert [target.device for target in found.targets] == ["this-cpu"]
        assert call("jobs") == []


def test_a_state_that_only_a_newer_server_knows_is_unknown() -> None:
    found = Job.model_validate(job("hibernating", terminal=False))
    assert (found.state, found.terminal) == (JobState.UNKNOWN, False)
    assert not found.state.is_final
    page = EventPage.model_validate({"items": [], "job_state": "molten", "terminal": True})
    assert (page.job_state, page.terminal) == (JobState.UNKNOWN, True)
    assert Job.model_validate(job("running")).state is JobState.RUNNING


def test_evaluations_come_with_their_metrics(
    connect: Connect, settings: Settings, database: Database
) -> None:
    job_id = create_job(database)
    one = Evaluation(
        source="search",
        generation=0,
        index_in_generation=0,
        fingerprint="f",
        fidelity="600",
        subnet={"layers": [0]},
        metrics={"quality": 0.5},
    )
    with database.write() as session:
        record_evaluation(session, job_id, one)
    with listening(settings) as server:
        (found,) = connect(*server)("evaluations", job_id)
    assert found.metrics == {"quality": 0.5}


def test_files_are_named_by_their_hash(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert sha256_of(path).startswith("ba7816bf")
