"""Requests as they travel."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from predictors.onboarding import choose_networks
from predictors.spec import MAX_NETWORKS, MeasuringSpec, NetworkSpec
from predictors.workload import Workload
from search.errors import InvalidInput
from search.space import SubnetConfig
from tests.predictors.shapes import TINY, TINY_SPACE

SHORT = Workload(seq_len=8)
FULL = SubnetConfig.full(TINY)


def spec(*networks: NetworkSpec, workload: Workload = SHORT, **changes: Any) -> MeasuringSpec:
    values: dict[str, Any] = {
        "workload": workload,
        "shape": TINY,
        "reference": NetworkSpec(key="reference", subnet=FULL),
        "networks": networks or (NetworkSpec(key="n0", subnet=FULL),),
    }
    return MeasuringSpec(**(values | changes))


def refused(data: dict[str, Any]) -> str:
    with pytest.raises(InvalidInput) as caught:
        MeasuringSpec.from_dict(data)
    return caught.value.field


def test_a_plan_becomes_a_request_that_survives_json() -> None:
    plan = choose_networks(TINY_SPACE, TINY, SHORT, num_networks=8, num_holdout=2)
    asked = plan.to_spec(TINY, SHORT, rounds=3, repeats=2, seed=5)
    assert MeasuringSpec.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked
    assert [n.key for n in asked.networks] == [f"n{i}" for i in range(8)] + ["h0", "h1"]


def test_a_file_travels_by_its_hash() -> None:
    network = NetworkSpec(key="t0", blob="ab" * 32)
    assert network.to_dict() == {"key": "t0", "blob": "ab" * 32}
    assert NetworkSpec.from_dict(network.to_dict()) == network
    with pytest.raises(InvalidInput, match=r"networks\.t0\.blob"):
        NetworkSpec(key="t0", blob="../../etc/passwd")


def test_a_file_may_know_fewer_words_than_the_model() -> None:
    network = NetworkSpec(key="t0", blob="ab" * 32, vocab_size=7)
    assert NetworkSpec.from_dict(network.to_dict()) == network
    with pytest.raises(InvalidInput, match=r"networks\.t0\.vocab_size"):
        NetworkSpec(key="t0", subnet=FULL, vocab_size=7)


@pytest.mark.parametrize("key", ["../up", "", "a b", "x" * 65])
def test_a_key_that_is_no_file_name_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match=r"networks\.key"):
        NetworkSpec(key=key, blob="ab" * 32)


def test_an_empty_network_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"networks\.n0"):
        NetworkSpec(key="n0")


def test_three_anchors_of_different_sizes_accompany_a_session() -> None:
    reference, middle, small = spec().anchors
    assert reference.subnet == FULL
    assert middle.subnet is not None
    assert small.subnet is not None
    assert 3 > middle.subnet.num_layers > small.subnet.num_layers
    assert small.subnet.precision == "int8"
    (*_, small) = spec(workload=replace(SHORT, runtime="torch")).anchors
    assert small.subnet is not None
    assert small.subnet.precision == "fp32"


def test_requests_that_cannot_be_met_name_the_field() -> None:
    network = NetworkSpec(key="n0", subnet=FULL)
    with pytest.raises(InvalidInput, match="only once"):
        spec(network, network)
    with pytest.raises(InvalidInput, match="only once"):
        spec(NetworkSpec(key="middle-anchor", subnet=FULL))
    with pytest.raises(InvalidInput, match="nothing to measure"):
        spec(networks=())
    with pytest.raises(InvalidInput, match=r"workload\.seq_len"):
        spec(workload=Workload(seq_len=17))
    with pytest.raises(InvalidInput, match=r"workload\.phase"):
        spec(workload=replace(SHORT, phase="decode"))
    with pytest.raises(InvalidInput, match=rf"at most {MAX_NETWORKS}"):
        spec(*(NetworkSpec(key=f"n{i}", subnet=FULL) for i in range(MAX_NETWORKS + 1)))
    with pytest.raises(InvalidInput, match="repeats"):
        spec(repeats=10_000)
    with pytest.raises(InvalidInput, match=r"shape\.ffn_dim"):
        spec(shape=replace(TINY, ffn_dim=10**9))
    with pytest.raises(InvalidInput, match=r"shape\.family"):
        spec(shape=replace(TINY, family="mamba"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"layers": (0, 1, 3)}, "layers[2]"),
        ({"layers": (-1, 0, 1)}, "layers[0]"),
        ({"num_heads": (4, 5, 4)}, "num_heads[1]"),
        ({"num_heads": (0, 4, 4)}, "num_heads[0]"),
        ({"ffn_dim": (64, 64, 65)}, "ffn_dim[2]"),
        ({"ffn_dim": (64, 0, 64)}, "ffn_dim[1]"),
        ({"layers": (), "num_heads": (), "ffn_dim": ()}, "layers"),
    ],
)
def test_a_subnet_outside_its_shape_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec(NetworkSpec(key="n0", subnet=replace(FULL, **change)))
    assert caught.value.field == f"networks.n0.subnet.{field}"


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_precisions_that_a_runtime_does_not_build_are_refused(runtime: str) -> None:
    workload = replace(SHORT, runtime=runtime)
    with pytest.raises(InvalidInput, match=rf"{runtime}.*int8"):
        spec(NetworkSpec(key="n0", subnet=FULL.with_precision("int8")), workload=workload)


def test_torch_runs_no_files() -> None:
    blob = NetworkSpec(key="t0", blob="ab" * 32, subnet=FULL)
    with pytest.raises(InvalidInput, match=r"networks\.t0\.blob"):
        spec(blob, workload=replace(SHORT, runtime="torch"))
    spec(blob, workload=replace(SHORT, runtime="openvino"))


def test_a_malformed_request_names_the_field() -> None:
    good = json.loads(json.dumps(spec().to_dict()))
    assert refused(good | {"rounds": "7"}) == "rounds"
    assert refused(good | {"rounds": 7.5}) == "rounds"
    assert refused(good | {"seed": -1}) == "seed"
    assert refused(good | {"code": "import os"}) == "code"
    assert refused(good | {"networks": None}) == "networks"
    assert refused(good | {"networks": [{"key": "n0", "subnet": 3}]}) == "networks[0].subnet"
    assert refused(good | {"shape": good["shape"] | {"ffn_dim": 1.5}}) == "shape.ffn_dim"
    assert refused(good | {"shape": good["shape"] | {"norm_eps": "0"}}) == "shape.norm_eps"
    assert refused(good | {"workload": {"runtime": "abacus"}}) == "workload.runtime"
    ragged = {"layers": [0], "num_heads": [1, 1], "ffn_dim": [8], "precision": "fp32"}
    networks = [{"key": "n0", "subnet": ragged}]
    assert refused(good | {"networks": networks}) == "networks[0].subnet"


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"batch_size": 0}, "workload.batch_size"),
        ({"batch_size": 10_000}, "workload.batch_size"),
        ({"threads": True}, "workload.threads"),
        ({"runtime": "abacus"}, "workload.runtime"),
        ({"runtime": "openvino", "provider": "cuda"}, "workload.provider"),
        ({"phase": "dream"}, "workload.phase"),
        ({"gpu": 1}, "workload.gpu"),
    ],
)
def test_an_impossible_workload_names_the_field(data: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Workload.from_dict(data)
    assert caught.value.field == field


def test_equal_workloads_share_a_key() -> None:
    assert Workload.from_dict(SHORT.to_dict()).key == SHORT.key
    assert SHORT.key == "encode/onnxruntime/cpu/b1/s8/t1"
    assert SHORT.with_size(batch_size=8, seq_len=16).key == "encode/onnxruntime/cpu/b8/s16/t1"
