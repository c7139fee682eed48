from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.client import Client
from service.database.db import Database, epoch_now
from service.database.models import Device, PredictorRow
from service.devices import measurement_jobs, measurements
from service.devices.measurements import CheckedResult
from service.jobs.job_states import conclude_job
from service.jobs.jobs import ONBOARDING, create_job
from service.steps.step_types import NewMeasurement
from service.tenants.auth import JOBS_READ, create_key
from tests.search.model.folders import write_model
from tests.service.api.test_api_predictors import learn
from tests.service.helpers import create_device
from tests.service.measuring import answer, measuring_spec
from tests.service.web.browsing import error_of, post, signed_in, text_of


@pytest.fixture
def device(database: Database) -> Device:
    return create_device(database)


def measured(database: Database, device: Device, *, noisy: bool = False) -> None:
    """One more session of it."""
    spec = measuring_spec()
    with database.write() as session:
        new = NewMeasurement(device_id=device.id, spec=spec.to_dict())
        work = measurement_jobs.create(session, new, job_id=None)
        checked = CheckedResult.of(spec, answer(spec, noisy=noisy))
        measurements.record_session(session, work, checked)


def test_the_list_says_who_is_there(
    browser: TestClient, database: Database, device: Device
) -> None:
    page = text_of(browser.get("/devices").text)
    assert "this-cpu" in page
    assert "online" in page
    assert "onnxruntime 1.0" in page
    with database.write() as session:
        session.execute(update(Device).values(last_seen_at=epoch_now() - 7200))
    page = text_of(browser.get("/devices").text)
    assert "away" in page
    assert "2 h ago" in page
    part = browser.get("/devices", headers={"HX-Request": "true"}).text
    assert "<html" not in part
    assert device.id in part


def test_without_devices_it_says_how_to_connect_one(http: TestClient, others_key: str) -> None:
    page = text_of(signed_in(http, others_key).get("/devices").text)
    assert "No device yet" in page
    assert "snugnet agent --server http://testserver --name my-device" in page
    assert "this-cpu" not in page


def test_a_device_that_was_never_measured_says_so(browser: TestClient, device: Device) -> None:
    page = text_of(browser.get(f"/devices/{device.id}").text)
    assert "No predictor yet" in page
    assert "never onboarded" in page
    assert "openvino is not installed here" in page
    assert browser.get("/devices/this-cpu").status_code == 200
    assert browser.get("/devices/toaster").status_code == 404


def test_it_shows_how_well_each_network_is_predicted(
    browser: TestClient, database: Database, device: Device
) -> None:
    learn(database, "fp32")
    learn(database, "int8")
    page = browser.get(f"/devices/{device.id}").text
    for chart in ("predicted", "residuals"):
        assert f'data-chart="{chart}"' in page
    told = text_of(page)
    assert "Versions of its predictors" in told
    assert "onnxruntime-1.0 t1 encode fp32 1" in told
    assert "1.0 %" in told
    assert "onnxruntime 1.0, 1 thread, encode: bert, 2 layers of 16" in told


def test_versions_count_up_and_the_newest_is_drawn(
    browser: TestClient, database: Database, device: Device
) -> None:
    first, second = learn(database, "fp32"), learn(database, "fp32")
    page = browser.get(f"/devices/{device.id}").text
    assert page.count("onnxruntime-1.0 t1 encode") == 2
    assert first != second
    assert browser.get(f"/devices/{device.id}?predictor=nonsense").status_code == 200


def test_a_predictor_of_another_version_breaks_no_page(
    browser: TestClient, database: Database, device: Device
) -> None:
    learn(database, "fp32")
    with database.write() as session:
        session.execute(update(PredictorRow).values(payload={"version": "0"}))
    page = browser.get(f"/devices/{device.id}")
    assert page.status_code == 200
    assert "No predictor yet" in page.text


def test_it_shows_anchors_and_noise_of_every_session(
    browser: TestClient, database: Database, device: Device
) -> None:
    measured(database, device)
    measured(database, device, noisy=True)
    page = browser.get(f"/devices/{device.id}").text
    for chart in ("anchors", "noise"):
        assert f'data-chart="{chart}"' in page
    told = text_of(page)
    assert "The newest 2 of 2 measuring sessions" in told
    assert "0.4 %" in told
    assert told.count("noisy") >= 1


def test_an_onboarding_is_begun_followed_and_cancelled(
    browser: TestClient, client: Client, device: Device, tmp_path: Path
) -> None:
    model = client.upload_folder(write_model(tmp_path / "model"))
    page = f"/devices/{device.id}"
    asked = {"model.upload": model.id, "workload.seq_len": "16", "max_minutes": "1"}
    begun = post(browser, f"{page}/onboard", **asked)
    assert (begun.status_code, begun.headers["location"]) == (303, f"{page}#onboardings")
    (found,) = client.onboardings(device=device.id).items
    assert (found.spec["workload"]["seq_len"], found.spec["max_minutes"]) == (16, 1.0)
    part = browser.get(page, headers={"HX-Request": "true"}).text
    assert found.id in part
    assert 'hx-trigger="every 3s"' in part
    cancelled = post(browser, f"{page}/onboardings/{found.id}/cancel")
    assert cancelled.status_code == 303
    part = browser.get(page, headers={"HX-Request": "true"}).text
    assert "cancelled" in part
    assert "hx-trigger" not in part


def test_what_an_onboarding_found_is_told(
    browser: TestClient, database: Database, device: Device
) -> None:
    with database.write() as session:
        job = create_job(session, {"device": device.id}, name="o", kind=ONBOARDING)
        drift = {"kind": "scale", "scale": 1.25, "disagreement": 0.01}
        result = {"fit_report": {"mape": 0.027, "num_holdout": 8}, "drift": drift}
        conclude_job(session, job.id, "succeeded", result=result)
    page = text_of(browser.get(f"/devices/{device.id}").text)
    assert "mean error 2.7 % on 8 networks left out" in page
    assert "drift: scale, 1.25 times" in page


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"workload.seq_len": "x"}, "workload.seq_len", "valid integer"),
        ({"workload.runtime": "openvino"}, "workload.runtime", "not installed here"),
        ({"max_minutes": "0"}, "max_minutes", "greater than or equal"),
        ({"model.upload": "up_0"}, "model.upload", "no finished model"),
    ],
)
def test_a_wrong_onboarding_is_told_beside_its_field_and_kept(
    browser: TestClient,
    client: Client,
    device: Device,
    tmp_path: Path,
    changes: dict[str, str],
    field: str,
    reason: str,
) -> None:
    model = client.upload_folder(write_model(tmp_path / "model"))
    asked = {"model.upload": model.id, "workload.threads": "2", "workload.seq_len": "16"}
    page = post(browser, f"/devices/{device.id}/onboard", **{**asked, **changes})
    assert page.status_code == 422
    assert reason in error_of(page.text, field)
    assert 'name="workload.threads" value="2"' in page.text
    assert client.onboardings(device=device.id).items == []


def test_a_device_is_renamed_retired_and_brought_back(
    browser: TestClient, client: Client, database: Database, device: Device
) -> None:
    page = f"/devices/{device.id}"
    assert post(browser, f"{page}/rename", name="new-name").status_code == 303
    assert client.device(device.id).name == "new-name"
    wrong = post(browser, f"{page}/rename", name="No Such Name!")
    assert (wrong.status_code, "Small letters" in error_of(wrong.text, "name")) == (422, True)
    create_device(database, "taken")
    taken = post(browser, f"{page}/rename", name="taken")
    assert (taken.status_code, "taken" in error_of(taken.text, "name")) == (422, True)
    assert post(browser, f"{page}/retire").status_code == 303
    assert client.device(device.id).retired_at is not None
    assert "Bring it back" in browser.get(page).text
    assert "1 retired" in text_of(browser.get("/devices").text)
    assert post(browser, f"{page}/bring-back").status_code == 303
    assert client.device(device.id).retired_at is None


def test_who_may_only_look_is_offered_no_change(
    http: TestClient, database: Database, device: Device
) -> None:
    with database.write() as session:
        key = create_key(session, "reader", scopes=[JOBS_READ])
    reader = signed_in(http, key)
    page = f"/devices/{device.id}"
    assert "Retire it" not in reader.get(page).text
    assert post(reader, f"{page}/retire").status_code == 403
