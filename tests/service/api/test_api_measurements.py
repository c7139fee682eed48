"""What was measured, and who asks for it: everything that an agent hands in, and nothing wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from service.client import Client, NotFound, Rejected
from service.database.db import Database
from service.database.models import MeasurementRow, MeasuringSession
from service.devices import measurement_jobs
from service.settings import Settings
from service.steps.step_types import NewMeasurement
from tests.service.helpers import create_device, create_measuring_job, measurement_of
from tests.service.measuring import IDENTITY, SHAPE, answer, measuring_spec, subnet
from tests.service.serving import listening

WORKLOAD = {"seq_len": 8}


def hand_in(client: Client, database: Database, **changes: Any) -> str:
    """A finished measuring job on `this-cpu`; the device's id."""
    device = create_device(database)
    spec = measuring_spec(**changes)
    with database.write() as session:
        new = NewMeasurement(
            device_id=device.id, spec=spec.to_dict(), purposes={"n0": "holdout", "n2": "user"}
        )
        measurement_jobs.create(session, new, job_id=None)
    claimed = client.claim_measurement_job(device.id, wait_s=0)
    assert claimed is not None
    client.report_result(claimed.id, claimed.token, answer(spec))
    return device.id


def test_every_measured_network_is_kept_with_its_samples(
    client: Client, database: Database
) -> None:
    device_id = hand_in(client, database)
    rows = client.measurements(device_id).items
    by_key = {row.network_key: row for row in rows}
    assert set(by_key) == {"n0", "n1", "n2"}
    assert {key: row.purpose for key, row in by_key.items()} == {
        "n0": "holdout",
        "n1": "onboarding",
        "n2": "user",
    }
    first = by_key["n0"]
    assert first.median_ms == pytest.approx(2.0)
    assert first.samples["rounds_ms"] == [[2.0], [2.02], [1.98]]
    assert (first.batch_size, first.seq_len, first.threads, first.runtime) == (
        1, 8, 1, "onnxruntime",
    )  # fmt: skip
    assert first.predictor_key.endswith("/onnxruntime-1.0/cpu/fp32/t1/encode")
    assert by_key["n1"].predictor_key.endswith("/int8/t1/encode")
    assert first.subnet == subnet(1).to_dict()
    assert first.subnet_fingerprint == subnet(1).fingerprint


def test_a_session_keeps_its_anchors_and_conditions(client: Client, database: Database) -> None:
    device_id = hand_in(client, database)
    (session,) = client.measuring_sessions(device_id).items
    assert [a["key"] for a in session.anchors] == ["reference", "middle-anchor", "small-anchor"]
    assert session.anchors[0]["median_ms"] == pytest.approx(10.0)
    assert session.summary["noise_floor"] == 0.004
    assert session.peaks["bytes_per_s"] == 1e10
    assert session.environment["before"] == {"load": 0.1}
    assert session.workload_key == "encode/onnxruntime/cpu/b1/s8/t1"
    assert {row.session_id for row in client.measurements(device_id).items} == {session.id}


def test_measurements_are_filtered(client: Client, database: Database) -> None:
    device_id = hand_in(client, database)
    (session,) = client.measuring_sessions(device_id).items
    hand_in(client, database)

    def found(**filters: Any) -> int:
        return len(client.measurements(device_id, **filters).items)

    assert found() == 6
    assert found(session=session.id) == 3
    assert found(precision="int8") == 4
    assert found(purpose="holdout", session=session.id) == 1
    assert found(runtime="openvino") == 0
    assert found(since=session.created_at) == 6
    assert found(since=session.created_at + 3600) == 0


def test_pages_go_on_where_the_one_before_ended(client: Client, database: Database) -> None:
    device_id = hand_in(client, database)
    hand_in(client, database)
    seen, cursor = [], {}
    for _ in range(3):
        page = client.measurements(device_id, limit=2, **cursor)
        seen += [row.id for row in page.items]
        cursor = {"cursor": page.next_cursor}
    assert page.next_cursor is None
    assert len(set(seen)) == 6
    sessions = client.measuring_sessions(device_id, limit=1)
    assert len(client.measuring_sessions(device_id, cursor=sessions.next_cursor).items) == 1
    for nonsense in ("x", "W10", "bnVsbA", "WzFlOTk5LCAieCJd"):
        with pytest.raises(Rejected, match="cursor"):
            client.measurements(device_id, cursor=nonsense)


def test_a_user_asks_for_some_networks(client: Client, database: Database) -> None:
    device = create_device(database)
    request = {
        "workload": WORKLOAD,
        "shape": SHAPE.to_dict(),
        "subnets": [subnet(1).to_dict(), subnet(2, "int8").to_dict()],
    }
    job = client.measure("this-cpu", request)
    assert (job.state, job.device_id, job.session_id) == ("ready", device.id, None)
    claimed = client.claim_measurement_job(device.id, wait_s=0)
    assert claimed is not None
    spec = measuring_spec().from_dict(claimed.spec)
    assert [network.subnet for network in spec.networks] == [subnet(1), subnet(2, "int8")]
    client.report_result(claimed.id, claimed.token, answer(spec))
    done = client.measurement_job(job.id)
    assert done.state == "done"
    rows = client.measurements(device.id, session=done.session_id).items
    assert {row.purpose for row in rows} == {"user"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"workload": {"seq_len": 17}}, "workload.seq_len"),
        ({"workload": {"runtime": "openvino"}}, "workload.runtime"),
        ({"workload": {"provider": "cuda"}}, "workload.provider"),
        ({"workload": {"runtime": "tflite"}}, "workload.runtime"),
        ({"shape": {"family": "bert"}}, "shape"),
        ({"subnets": [subnet(1, ffn_dim=33).to_dict()]}, "subnets[0].ffn_dim[0]"),
        ({"subnets": [{}]}, "subnets[0]"),
        ({"subnets": []}, "subnets"),
        ({"subnets": [subnet(1).to_dict()] * 65}, "subnets"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_its_field(
    client: Client, change: dict[str, Any], field: str
) -> None:
    request = {"workload": WORKLOAD, "shape": SHAPE.to_dict(), "subnets": [subnet(1).to_dict()]}
    with pytest.raises(Rejected) as refused:
        client.measure("this-cpu", {**request, **change})
    assert refused.value.problem.errors[0].field.startswith(field)


def test_a_missing_runtime_is_refused_with_the_reason_of_the_device(client: Client) -> None:
    request = {
        "workload": {**WORKLOAD, "runtime": "openvino"},
        "shape": SHAPE.to_dict(),
        "subnets": [subnet(1).to_dict()],
    }
    with pytest.raises(Rejected, match="openvino is not installed here"):
        client.measure("this-cpu", request)


# --- results that cannot be true, as they come over the wire -----------------------------------

Break = Callable[[dict[str, Any]], None]


def sample(value: Any) -> Break:
    def spoil(result: dict[str, Any]) -> None:
        result["measurements"][1]["rounds_ms"][2][0] = value

    return spoil


def delete(*path: Any) -> Break:
    def spoil(result: dict[str, Any]) -> None:
        place: Any = result
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return spoil


def put(value: Any, *path: Any) -> Break:
    def spoil(result: dict[str, Any]) -> None:
        place: Any = result
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return spoil


FAULTS: dict[str, tuple[Break, str]] = {
    "NaN": (sample(float("nan")), "result.measurements[1].rounds_ms[2][0]"),
    "infinite": (sample(float("inf")), "result.measurements[1].rounds_ms[2][0]"),
    "negative": (sample(-1.0), "measurements[1].rounds_ms[2][0]"),
    "zero": (sample(0.0), "measurements[1].rounds_ms[2][0]"),
    "two hours, of a clock that jumped": (sample(7.2e6), "measurements[1].rounds_ms[2][0]"),
    "text": (sample("2 ms"), "measurements[1].rounds_ms[2][0]"),
    "an empty round": (put([], "measurements", 0, "rounds_ms", 1), "measurements[0].rounds_ms[1]"),
    "no round": (put([], "measurements", 0, "rounds_ms"), "measurements[0].rounds_ms"),
    "nothing measured": (put([], "measurements"), "measurements"),
    "a network is missing": (delete("measurements", 2), "measurements"),
    "another network": (put("n9", "measurements", 0, "key"), "measurements[0].key"),
    "another subnet": (
        put(subnet(2).to_dict(), "measurements", 0, "subnet"),
        "measurements[0].subnet",
    ),
    "no anchors": (put([], "anchors"), "anchors"),
    "NaN in an anchor": (put(float("nan"), "anchors", 0, "rounds_ms", 0, 0), "result.anchors[0]"),
    "a factor of 0": (put(0.0, "measurements", 0, "factors", 0), "measurements[0].factors[0]"),
    "no session": (delete("session"), "session"),
    "no device": (delete("environment", "device"), "environment.device"),
    "NaN in the environment": (put(float("nan"), "environment", "x"), "result.environment.x"),
    "negative peaks": (put(-1.0, "peaks", "bytes_per_s"), "peaks.bytes_per_s"),
}


@pytest.fixture
def server(settings: Settings) -> Iterator[tuple[str, str]]:
    with listening(settings) as found:
        yield found


@pytest.mark.parametrize("fault", FAULTS)
def test_a_result_that_cannot_be_true_is_refused_and_the_claim_stays(
    server: tuple[str, str], database: Database, fault: str
) -> None:
    spoil, field = FAULTS[fault]
    job_id, device_id = create_measuring_job(database)
    url, key = server
    with Client(url, key) as client:
        claimed = client.claim_measurement_job(device_id, wait_s=0)
        assert claimed is not None
        result = copy.deepcopy(answer())
        spoil(result)
        # Python writes NaN as NaN, which no proper client would send.
        response = httpx.post(
            f"{url}/v1/measurement-jobs/{claimed.id}/result",
            content=json.dumps({"token": claimed.token, "result": result}),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            trust_env=False,
        )
        assert response.status_code == 422
        (error,) = response.json()["errors"]
        assert error["field"].startswith(field)
        assert measurement_of(database, job_id).state == "running"
        with database.read() as session:
            assert session.query(MeasurementRow).count() == 0
            assert session.query(MeasuringSession).count() == 0
        client.report_result(claimed.id, claimed.token, answer())
    assert measurement_of(database, job_id).state == "done"


def test_a_late_result_is_refused_whatever_it_holds(
    server: tuple[str, str], database: Database
) -> None:
    _, device_id = create_measuring_job(database)
    url, key = server
    with Client(url, key) as client:
        claimed = client.claim_measurement_job(device_id, wait_s=0)
        assert claimed is not None
        for result in (answer(), {}, {"measurements": [None]}):
            response = httpx.post(
                f"{url}/v1/measurement-jobs/{claimed.id}/result",
                json={"token": claimed.token + 1, "result": result},
                headers={"Authorization": f"Bearer {key}"},
                trust_env=False,
            )
            assert (response.status_code, response.json()["code"]) == (409, "lease_lost")


def test_an_unknown_device_or_job_is_not_found(client: Client) -> None:
    for call in (client.measurements, client.measuring_sessions, client.predictors, client.device):
        with pytest.raises(NotFound, match="there is no device 'toaster'"):
            call("toaster")
    with pytest.raises(NotFound, match="measurement job"):
        client.measurement_job("mj_x")


def test_a_device_that_cannot_be_is_refused_by_its_field(client: Client) -> None:
    for change, field in (
        ({"num_cores": "2"}, "identity.num_cores"),
        ({"memory_bytes": None}, "identity.memory_bytes"),
        ({"runtimes": {"onnxruntime": 3}}, "identity.runtimes.onnxruntime"),
    ):
        with pytest.raises(Rejected) as refused:
            client.register_device("pi", {**IDENTITY, **change})
        assert refused.value.problem.errors[0].field == field
