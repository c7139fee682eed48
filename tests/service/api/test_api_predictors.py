"""What predictors of a device say over HTTP, and which ones there are."""

from __future__ import annotations

from typing import Any

import pytest

from predictors.device import Device
from predictors.key import Quantity, predictor_key, shape_key
from predictors.onboarding import choose_networks
from predictors.predictor import LatencyPredictor
from predictors.rows import LatencyRow
from predictors.workload import Workload
from search.space import SearchSpace, SubnetConfig
from service.client import Client, NotFound, Rejected
from service.database.db import Database
from service.database.models import PredictorRow
from service.devices.predictor_store import save_predictor
from tests.service.helpers import create_device
from tests.service.measuring import IDENTITY, SHAPE, WORKLOAD, subnet

SPACE = SearchSpace.for_shape(SHAPE)


def latency_ms(subnet: SubnetConfig) -> float:
    """In proportion to the work, a little for each layer."""
    work = sum(h * 8 + f for h, f in zip(subnet.num_heads, subnet.ffn_dim, strict=True))
    return (0.1 + 0.05 * work + subnet.num_layers) * (0.5 if subnet.precision == "int8" else 1.0)


def row(subnet: SubnetConfig) -> LatencyRow:
    ms = latency_ms(subnet)
    return LatencyRow(
        subnet=subnet,
        batch_size=1,
        seq_len=8,
        median_ms=ms,
        p95_ms=1.1 * ms,
        anchors_ms=(latency_ms(SubnetConfig.full(SHAPE)),),
    )


def learn(
    database: Database,
    precision: str,
    workload: Workload = WORKLOAD,
    quantity: Quantity = "latency",
) -> str:
    """Store a predictor of `this-cpu`; its id."""
    device = create_device(database)
    key = predictor_key(Device.from_dict(IDENTITY), workload, precision, quantity)
    plan = choose_networks(SPACE, SHAPE, workload, num_networks=24, num_holdout=2)
    rows = [row(s) for s in plan.training if s.precision == precision]
    fitted = LatencyPredictor.fit(rows, key=key, shape=SHAPE, macs_per_byte=4.0)
    with database.write() as session:
        return save_predictor(
            session,
            device.id,
            key=key,
            shape_key=shape_key(SHAPE),
            payload=fitted.to_json(),
            fit_report={"mape": 0.01},
        )


def asked(*subnets: SubnetConfig, **changes: Any) -> dict[str, Any]:
    return {
        "shape": SHAPE.to_dict(),
        "workload": {"seq_len": 8},
        "subnets": [s.to_dict() for s in subnets],
        **changes,
    }


def test_latency_comes_with_interval_breakdown_and_a_warning(
    client: Client, database: Database
) -> None:
    ids = {learn(database, "fp32"), learn(database, "int8")}
    known = SPACE.largest.with_precision("fp32")
    small = SubnetConfig(layers=(0,), num_heads=(1,), ffn_dim=(1,), precision="int8")
    page = client.predict("this-cpu", asked(known, small))
    assert set(page.predictors) == ids
    first, second = page.items
    assert first.lower_ms <= first.mean_ms <= first.upper_ms
    assert first.mean_ms == pytest.approx(latency_ms(known), rel=0.25)
    assert sum(first.breakdown.values()) == pytest.approx(1)
    assert (first.extrapolating, second.extrapolating) == (False, True)
    p95 = client.predict("this-cpu", asked(known, statistic="p95")).items[0]
    assert p95.mean_ms > first.mean_ms


def test_one_version_is_asked_by_its_id(client: Client, database: Database) -> None:
    old = learn(database, "fp32")
    new = learn(database, "fp32")
    request = {k: v for k, v in asked(subnet(1)).items() if k != "shape"}
    assert client.predict("this-cpu", {**request, "predictor": old}).predictors == [old]
    assert client.predict("this-cpu", asked(subnet(1))).predictors == [new]
    request["predictor"] = old
    with pytest.raises(Rejected, match=r"workload.threads: this predictor is of 1"):
        client.predict("this-cpu", {**request, "workload": {"seq_len": 8, "threads": 2}})
    with pytest.raises(Rejected, match=r"subnets\[0\].precision: this predictor is of 'fp32'"):
        client.predict("this-cpu", {**request, "subnets": [subnet(1, "int8").to_dict()]})
    with pytest.raises(NotFound, match="there is no predictor 'pred_x'"):
        client.predict("this-cpu", {**request, "predictor": "pred_x"})


def test_a_predictor_of_energy_is_not_asked_for_latency(
    client: Client, database: Database
) -> None:
    latency = learn(database, "fp32")
    energy = learn(database, "fp32", quantity="energy")
    assert client.predict("this-cpu", asked(subnet(1))).predictors == [latency]
    request = {k: v for k, v in asked(subnet(1)).items() if k != "shape"}
    with pytest.raises(Rejected, match="predictor: is of energy, not of latency"):
        client.predict("this-cpu", {**request, "predictor": energy})


def test_without_a_predictor_it_says_to_onboard(client: Client, database: Database) -> None:
    create_device(database)
    learn(database, "fp32")
    for request in (
        asked(subnet(1, "int8")),
        asked(subnet(1), workload={"seq_len": 8, "threads": 2}),
        asked(subnet(1), shape={**SHAPE.to_dict(), "embed_dim": 32}),
    ):
        with pytest.raises(NotFound, match="onboard it first") as caught:
            client.predict("this-cpu", request)
        assert caught.value.problem.code == "no_predictor"


def test_a_predictor_of_another_version_is_not_misread(client: Client, database: Database) -> None:
    predictor_id = learn(database, "fp32")
    with database.write() as session:
        session.get_one(PredictorRow, predictor_id).payload = {"version": 0}
    with pytest.raises(NotFound, match="another version; onboard again"):
        client.predict("this-cpu", asked(subnet(1)))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"subnets": []}, "subnets"),
        ({"subnets": [subnet(1).to_dict()] * 1001}, "subnets"),
        ({"subnets": [subnet(1, ffn_dim=33).to_dict()]}, "subnets[0].ffn_dim[0]"),
        ({"workload": {"seq_len": 17}}, "workload.seq_len"),
        ({"workload": {"seq_len": 8, "runtime": "openvino"}}, "workload.runtime"),
        ({"predictor": "pred_x"}, "shape"),
        ({"statistic": "p99"}, "statistic"),
    ],
)
def test_what_cannot_be_predicted_is_refused_by_its_field(
    client: Client, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(Rejected) as refused:
        client.predict("this-cpu", {**asked(subnet(1)), **change})
    assert refused.value.problem.errors[0].field.startswith(field)


def test_versions_are_listed_and_read(client: Client, database: Database) -> None:
    first, second = learn(database, "fp32"), learn(database, "fp32")
    other = learn(database, "int8")
    assert [(p.id, p.version) for p in client.predictors("this-cpu", precision="fp32").items] == [
        (second, 2),
        (first, 1),
    ]
    newest = client.predictors("this-cpu", latest="true").items
    assert {p.id for p in newest} == {second, other}
    page = client.predictors("this-cpu", limit=2)
    assert [p.id for p in page.items] == [other, second]
    page = client.predictors("this-cpu", limit=2, cursor=page.next_cursor)
    assert ([p.id for p in page.items], page.next_cursor) == ([first], None)
    with pytest.raises(Rejected, match="cursor: is not one that this server gave"):
        client.predictors("this-cpu", cursor="pred_x")
    found = client.predictor("this-cpu", first)
    assert found.fit_report == {"mape": 0.01}
    assert LatencyPredictor.from_json(found.payload).shape == SHAPE
    assert len(client.predictors("this-cpu", key=found.predictor_key).items) == 2
    assert client.device("this-cpu").num_predictors == 3
