"""Requests and answers as they travel."""

from __future__ import annotations

import json

import pytest

from predictors.onboarding import choose_networks
from predictors.spec import MeasuringSpec, NetworkSpec
from predictors.workload import Workload
from search.errors import InvalidInput
from search.space import SubnetConfig
from tests.predictors.shapes import TINY, TINY_SPACE

SHORT = Workload(seq_len=8)


def spec(*networks: NetworkSpec, workload: Workload = SHORT) -> MeasuringSpec:
    return MeasuringSpec(
        workload=workload,
        shape=TINY,
        reference=NetworkSpec(key="reference", subnet=SubnetConfig.full(TINY)),
        networks=networks,
    )


def test_a_plan_becomes_a_request_that_survives_json() -> None:
    plan = choose_networks(TINY_SPACE, TINY, SHORT, num_networks=8, num_holdout=2)
    asked = plan.to_spec(TINY, SHORT, rounds=3, repeats=2, seed=5)
    assert MeasuringSpec.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked
    assert [n.key for n in asked.networks] == [f"n{i}" for i in range(8)] + ["h0", "h1"]


def test_a_file_travels_by_its_hash() -> None:
    network = NetworkSpec(key="t0", blob="ab" * 32)
    assert network.to_dict() == {"key": "t0", "blob": "ab" * 32}
    assert NetworkSpec.from_dict(network.to_dict()) == network


@pytest.mark.parametrize("key", ["../up", "", "a b", "x" * 65])
def test_a_key_that_is_no_file_name_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match=r"networks\.key"):
        NetworkSpec(key=key, blob="ab" * 32)


def test_an_empty_network_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"networks\.n0"):
        NetworkSpec(key="n0")


def test_requests_that_cannot_be_met_name_the_field() -> None:
    network = NetworkSpec(key="n0", subnet=SubnetConfig.full(TINY))
    with pytest.raises(InvalidInput, match="only once"):
        spec(network, network)
    with pytest.raises(InvalidInput, match="nothing to measure"):
        spec()
    with pytest.raises(InvalidInput, match=r"workload\.seq_len"):
        spec(network, workload=Workload(seq_len=17))


@pytest.mark.parametrize(
    ("data", "field"),
    [({"batch_size": 0}, "workload.batch_size"), ({"runtime": "abacus"}, "workload.runtime")],
)
def test_an_impossible_workload_names_the_field(data: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Workload.from_dict(data)
    assert caught.value.field == field


def test_equal_workloads_share_a_key() -> None:
    assert Workload.from_dict(SHORT.to_dict()).key == SHORT.key == "encode/onnxruntime/b1/s8/t1"
