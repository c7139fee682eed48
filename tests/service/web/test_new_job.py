from __future__ import annotations

import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.client import Client
from service.database.db import Database
from service.database.models import AuditRow, Job
from service.jobs.job_spec import JobSpec
from service.tenants.auth import JOBS_READ, create_key
from service.tenants.tenants import find_tenant, set_limits
from tests.service.serving import upload_both
from tests.service.web.browsing import csrf_of, error_of, fields_of, signed_in, text_of

Fields = dict[str, Any]


@pytest.fixture
def spec(client: Client, tmp_path: Path) -> dict[str, Any]:
    """Of a job as small as it gets, whose uploads are there."""
    return upload_both(client, tmp_path)


@pytest.fixture
def fields(browser: TestClient, spec: dict[str, Any]) -> Fields:
    """The form as a browser has it, filled in for that job."""
    found = fields_of(browser.get("/jobs/new").text)
    assert found["model.upload"] == spec["model"]["upload"]
    return {
        **found,
        "name": "from a form",
        "data.upload": spec["data"]["upload"],
        "targets[0].budget": "50",
        "targets[0].workload.seq_len": "16",
        "training.max_seq_len": "16",
    }


def send(browser: TestClient, fields: Fields, **changes: Any) -> httpx.Response:
    return browser.post("/jobs/new", data={"action": "submit", **fields, **changes})


def jobs_of(database: Database) -> list[Job]:
    with database.read() as session:
        return list(session.scalars(select(Job).order_by(Job.created_at)))


def shown(html: str, name: str) -> str:
    found = re.search(rf'<code id="{name}">(.*?)</code>', html, re.DOTALL)
    assert found is not None, text_of(html)
    return unescape(found.group(1))


def test_what_was_filled_in_becomes_a_job(
    browser: TestClient, database: Database, fields: Fields, spec: dict[str, Any]
) -> None:
    answer = send(browser, fields)
    (job,) = jobs_of(database)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job.id}")
    wanted = JobSpec.model_validate({**spec, "name": "from a form"})
    assert JobSpec.model_validate(job.spec) == wanted
    with database.read() as session:
        actions = list(session.scalars(select(AuditRow.action)))
    assert "POST /jobs/new" in actions


def test_the_job_as_yaml_and_as_curl_is_the_one_that_is_submitted(
    browser: TestClient, database: Database, fields: Fields
) -> None:
    fields |= {
        "name": "with 'quotes', \"more\" and ü",
        "labels": "team=search\nnote=it's $HOME",
        "more": "search:\n  objectives: [flops]\nspace:\n  num_layers: [1, 2]",
        "search.population": "6",
    }
    page = browser.post("/jobs/new/preview", data=fields).text
    from_yaml = JobSpec.model_validate(yaml.safe_load(shown(page, "as-yaml")))
    command, _, rest = shown(page, "as-curl").partition("<<'JOB'\n")
    body = rest.removesuffix("\nJOB")
    send(browser, fields)
    (job,) = jobs_of(database)
    submitted = JobSpec.model_validate(job.spec)
    assert from_yaml == JobSpec.model_validate_json(body) == submitted
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:3] == ["curl", "--fail-with-body", "http://testserver/v1/search-jobs"]
    assert submitted.space.num_layers == [1, 2]
    assert submitted.labels == {"team": "search", "note": "it's $HOME"}


def test_the_curl_command_makes_the_same_job(
    http: TestClient, browser: TestClient, database: Database, fields: Fields
) -> None:
    page = browser.post("/jobs/new/preview", data=fields).text
    body = shown(page, "as-curl").partition("<<'JOB'\n")[2].removesuffix("\nJOB")
    answer = http.post(
        "/v1/search-jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 201
    send(browser, fields)
    first, second = jobs_of(database)
    assert first.spec == second.spec


WRONG: list[tuple[dict[str, str], str, str]] = [
    ({"targets[0].budget": ""}, "targets[0].budget", "how long an inference"),
    ({"targets[0].budget": "abc"}, "targets[0].budget", "at most 100 percent"),
    ({"targets[0].budget": "250"}, "targets[0].budget", "at most 100 percent"),
    ({"targets[0].budget": "-1", "targets[0].budget_unit": "ms"}, "targets[0].budget", "greater"),
    ({"targets[0].device": "toaster"}, "targets[0].device", "no device 'toaster'"),
    ({"targets[0].workload.seq_len": "x"}, "targets[0].workload.seq_len", "valid integer"),
    ({"targets[0].workload.runtime": "abacus"}, "targets[0].workload.runtime", "abacus"),
    ({"model.upload": ""}, "model.upload", "Choose one, or upload"),
    ({"model.upload": "up_0"}, "model.upload", "no upload 'up_0'"),
    ({"data.upload": "up_0"}, "data.upload", "no upload 'up_0'"),
    ({"search.population": "2"}, "search.population", "greater than or equal to 4"),
    ({"training.max_seq_len": "5000"}, "training.max_seq_len", "at most"),
    ({"task": "divination"}, "task", "text-classification"),
    ({"labels": "no equals sign"}, "labels", "key=value"),
    ({"exports": "papyrus"}, "exports", "hould be"),
    ({"seed": "-1"}, "seed", "greater than or equal to 0"),
    ({"more": "a: [unclosed"}, "more", "not valid YAML"),
    ({"more": "- a list"}, "more", "keys and values"),
    ({"more": "nonsense: 1"}, "more", "unknown key"),
    ({"more": "compress: {stages: [{kind: origami}]}"}, "more", "origami"),
]


@pytest.mark.parametrize(("changes", "field", "reason"), WRONG)
def test_what_is_wrong_is_told_beside_its_field_and_nothing_typed_is_lost(
    browser: TestClient,
    database: Database,
    fields: Fields,
    changes: dict[str, str],
    field: str,
    reason: str,
) -> None:
    sent = {**fields, "name": "kept <b>&amp;", "data.text": "", **changes}
    answer = send(browser, sent)
    assert answer.status_code == 422
    assert reason in error_of(answer.text, field)
    kept = fields_of(answer.text)
    for name, typed in sent.items():
        if name in kept and name != "action":
            assert kept[name] == typed, name
    assert jobs_of(database) == []


def test_several_faults_are_told_at_once(browser: TestClient, fields: Fields) -> None:
    page = send(browser, {**fields, "targets[0].budget": "", "search.generations": "0"}).text
    assert error_of(page, "targets[0].budget")
    assert error_of(page, "search.generations")
    assert '<a href="#search.generations">Generations</a>' in page
    assert '<a href="#targets[0].budget">Target 0: Latency at most</a>' in page


def test_targets_are_added_and_removed_with_all_that_was_typed(
    browser: TestClient, database: Database, fields: Fields
) -> None:
    fields = fields_of(send(browser, fields, action="add-target").text)
    assert fields["targets[1].device"] == "this-cpu"
    assert fields["targets[1].workload.seq_len"] == "16"
    assert fields["targets[1].budget"] == ""
    fields |= {"targets[1].budget": "0.5", "targets[1].budget_unit": "ms"}
    fields = fields_of(send(browser, fields, action="add-target").text)
    fields |= {"targets[2].budget": "12.5"}
    fields = fields_of(send(browser, fields, action="remove-target-0").text)
    assert "targets[2].budget" not in fields
    assert (fields["targets[0].budget"], fields["targets[0].budget_unit"]) == ("0.5", "ms")
    assert fields["targets[1].budget"] == "12.5"
    assert fields["name"] == "from a form"
    assert jobs_of(database) == []
    for _ in range(10):
        fields = fields_of(send(browser, fields, action="add-target").text)
    assert sum(name.endswith("].budget") for name in fields) == 8


def test_a_check_estimates_and_starts_nothing(
    browser: TestClient, database: Database, fields: Fields
) -> None:
    page = send(browser, fields, action="check")
    assert page.status_code == 200
    assert "Nothing is wrong with it" in text_of(page.text)
    assert "144" in text_of(page.text)
    assert shown(page.text, "as-yaml")
    assert jobs_of(database) == []


def test_a_form_sent_twice_makes_one_job_and_a_changed_one_another(
    browser: TestClient, database: Database, fields: Fields
) -> None:
    first, again = send(browser, fields), send(browser, fields)
    assert first.headers["location"] == again.headers["location"]
    assert send(browser, fields, name="another").headers["location"] != first.headers["location"]
    assert len(jobs_of(database)) == 2


def test_a_page_that_sends_it_by_script_is_led_on_by_script(
    browser: TestClient, database: Database, fields: Fields
) -> None:
    headers = {"HX-Request": "true"}
    data = {"action": "submit", **fields}
    wrong = browser.post("/jobs/new", data={**data, "seed": "x"}, headers=headers)
    assert (wrong.status_code, "<html" in wrong.text) == (422, False)
    answer = browser.post("/jobs/new", data=data, headers=headers)
    (job,) = jobs_of(database)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (200, f"/jobs/{job.id}")


def test_a_page_of_an_earlier_session_keeps_what_was_typed_and_may_be_sent_again(
    browser: TestClient, database: Database, fields: Fields
) -> None:
    headers = {"HX-Request": "true"}
    data = {"action": "submit", **fields, "csrf_token": "of an earlier session"}
    answer = browser.post("/jobs/new", data=data, headers=headers)
    assert (answer.status_code, jobs_of(database)) == (403, [])
    data["csrf_token"] = answer.headers["X-CSRF-Token"]
    assert browser.post("/jobs/new", data=data, headers=headers).status_code == 200


def test_a_quota_is_told_and_nothing_typed_is_lost(
    browser: TestClient, database: Database, fields: Fields
) -> None:
    with database.write() as session:
        set_limits(session, find_tenant(session, "default"), {"max_queued_jobs": 0})
    answer = send(browser, fields)
    assert answer.status_code == 422
    assert "as many as are allowed" in text_of(answer.text)
    assert fields_of(answer.text)["name"] == "from a form"


def test_who_may_only_look_starts_nothing(http: TestClient, database: Database) -> None:
    with database.write() as session:
        reader = create_key(session, "reader", scopes=[JOBS_READ])
    browser = signed_in(http, reader)
    assert browser.get("/jobs/new").status_code == 403
    data = {"csrf_token": csrf_of(browser), "name": "x"}
    assert browser.post("/jobs/new", data=data).status_code == 403
    assert browser.post("/jobs/new/preview", data=data).status_code == 403


def test_nothing_of_another_tenant_is_offered_or_taken(
    http: TestClient, others_key: str, fields: Fields
) -> None:
    theirs = signed_in(http, others_key)
    page = theirs.get("/jobs/new").text
    for name in ("model.upload", "data.upload"):
        assert fields[name] not in page
    assert "this-cpu" not in fields_of(page).get("targets[0].device", "")
    answer = send(theirs, {**fields, "csrf_token": csrf_of(theirs)})
    assert answer.status_code == 422
    assert "no upload" in error_of(answer.text, "model.upload")
