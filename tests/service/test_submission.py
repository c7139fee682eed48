"""A budget that an earlier job's predictor rules out is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from predictors.onboarding import choose_networks
from predictors.predictor import LatencyPredictor, LatencyRow, predictor_key
from predictors.workload import Workload
from search.space import ModelShape, SearchSpace, SubnetConfig
from service.client import Client, Rejected
from service.db import Database
from service.devices import find_device
from service.models import PredictorRow, Upload
from service.predictor_store import save_predictor
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
        predictor = LatencyPredictor.fit(rows, shape=shape, workload=workload)
        device = find_device(session, "this-cpu")
        assert device is not None
        key = predictor_key(shape, workload)
        payload = predictor.to_json()
        save_predictor(session, device.id, workload.to_dict(), payload, {}, workload_key=key)


def _row(subnet: SubnetConfig, shape: ModelShape) -> LatencyRow:
    median_ms = subnet.num_layers * (0.6 if subnet.precision == "int8" else 1.0)
    return LatencyRow(
        subnet=subnet, median_ms=median_ms, p95_ms=median_ms, reference_ms=float(shape.num_layers)
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
