"""A budget that an earlier job's predictor rules out is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from predictors.device import Device
from predictors.key import predictor_key, shape_key
from predictors.onboarding import choose_networks
from predictors.predictor import LatencyPredictor
from predictors.rows import LatencyRow
from predictors.workload import Workload
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig
from service.client import Client, Rejected
from service.database.db import Database
from service.database.models import PredictorRow, Upload
from service.devices.devices import find_device
from service.devices.predictor_store import save_predictor
from tests.service.serving import upload_both


@pytest.fixture
def spec(client: Client, tmp_path: Path) -> dict[str, Any]:
    return upload_both(client, tmp_path)


@pytest.fixture
def predictor(database: Database, spec: dict[str, Any]) -> None:
    """Of the uploaded model on `this-cpu`: 1 ms a layer, 0.6 ms in int8."""
    workload = Workload(seq_len=16)
    with database.write() as session:
        upload = session.get(Upload, spec["model"]["upload"])
        assert upload is not None
        assert upload.summary is not None
        shape = ModelShape.from_dict({**upload.summary["shape"], "num_labels": 2})
        plan = choose_networks(SearchSpace.for_shape(shape), shape, workload, num_networks=12)
        rows = [_row(subnet, shape) for subnet in plan.training]
        device = find_device(session, "this-cpu")
        assert device is not None
        for precision in ("fp32", "int8"):
            key = predictor_key(Device.from_dict(device.identity), workload, precision)
            own = [row for row in rows if row.subnet.precision == precision]
            fitted = LatencyPredictor.fit(own, key=key, shape=shape, macs_per_byte=4.0)
            save_predictor(
                session,
                device.id,
                key=key,
                shape_key=shape_key(shape),
                payload=fitted.to_json(),
                fit_report={},
            )


def _row(subnet: SubnetConfig, shape: ModelShape) -> LatencyRow:
    median_ms = subnet.num_layers * (0.6 if subnet.precision == "int8" else 1.0)
    return LatencyRow(
        subnet=subnet,
        batch_size=1,
        seq_len=16,
        median_ms=median_ms,
        p95_ms=median_ms,
        anchors_ms=(float(shape.num_layers),),
    )


@pytest.mark.usefixtures("predictor")
@pytest.mark.parametrize("field", ["budget_ms", "budget_ratio"])
def test_the_refusal_names_the_field_and_the_closest_latency(
    client: Client, spec: dict[str, Any], field: str
) -> None:
    target = {"workload": {"seq_len": 16}}
    with pytest.raises(Rejected) as refused:
        client.submit({**spec, "targets": [{**target, field: 1e-6}]})
    (error,) = refused.value.problem.errors
    assert error.field == f"targets[0].{field}"
    assert "closest reachable latency is 0." in error.reason
    assert client.jobs() == []


@pytest.mark.usefixtures("predictor")
def test_a_budget_that_can_be_kept_is_taken(client: Client, spec: dict[str, Any]) -> None:
    assert client.submit(spec).id


@pytest.mark.usefixtures("predictor")
def test_an_old_predictor_refuses_nothing(
    client: Client, database: Database, spec: dict[str, Any]
) -> None:
    with database.write() as session:
        session.execute(update(PredictorRow).values(created_at=0.0))
    target = {"workload": {"seq_len": 16}, "budget_ms": 1e-6}
    assert client.submit({**spec, "targets": [target]}).id


def test_a_retired_device_takes_no_job(
    client: Client, database: Database, spec: dict[str, Any]
) -> None:
    client.retire_device("this-cpu")
    with pytest.raises(Rejected, match=r"targets\[0\]\.device.*retired"):
        client.submit(spec)
    with database.read() as session:
        assert find_device(session, "this-cpu") is not None


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"runtime": "torch"}, r"targets\[0\]\.workload\.runtime.*ONNX"),
        ({"runtime": "openvino"}, r"targets\[0\]\.workload\.runtime.*not installed here"),
        ({"provider": "cuda"}, r"targets\[0\]\.workload\.provider.*cuda"),
        ({"runtime": "tflite"}, r"targets\[0\]\.workload\.runtime.*tflite"),
    ],
)
def test_what_the_device_lacks_is_refused_with_its_reason(
    client: Client, spec: dict[str, Any], workload: dict[str, Any], message: str
) -> None:
    spec["targets"] = [{"budget_ms": 5.0, "workload": {"seq_len": 16, **workload}}]
    with pytest.raises(Rejected, match=message):
        client.submit(spec)


def test_a_search_by_energy_is_refused_where_the_device_cannot_measure_it(
    client: Client, database: Database, spec: dict[str, Any]
) -> None:
    weighing = {**spec, "search": {"objectives": ["energy_mj"]}}
    with pytest.raises(Rejected) as refused:
        client.submit(weighing)
    (error,) = refused.value.problem.errors
    assert error.field == "search.objectives"
    assert "'this-cpu', whose agent can read no energy counters" in error.reason
    with database.write() as session:
        device = find_device(session, "this-cpu")
        assert device is not None
        device.identity = {**device.identity, "energy_source": "rapl"}
    assert client.submit(weighing).id
