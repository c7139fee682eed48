"""Answers as they travel: a server must not believe any of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from predictors.blocks import BlockRecord
from predictors.measurement import Measurement
from predictors.spec import MeasuringResult, MeasuringSpec, NetworkSpec, SessionSummary
from predictors.workload import Workload
from search.errors import InvalidInput
from search.space import SubnetConfig
from tests.predictors.shapes import TINY

FULL = SubnetConfig.full(TINY)
SPEC = MeasuringSpec(
    workload=Workload(seq_len=8),
    shape=TINY,
    reference=NetworkSpec(key="reference", subnet=FULL),
    networks=(NetworkSpec(key="n0", subnet=FULL), NetworkSpec(key="t0", blob="ab" * 32)),
)


def answered(network: NetworkSpec) -> Measurement:
    return Measurement(
        key=network.key,
        subnet=network.subnet,
        rounds_ms=((1.0, 1.1), (1.2, 1.1)),
        reference_ms=((2.0,), (2.1,)),
        factors=(1.0, 1.0),
    )


BLOCKS = (
    BlockRecord(index=0, at_s=0.0, offset=0.0, reason=None, kept=True, load=0.5, steal_s=0.0),
    BlockRecord(index=1, at_s=1.0, offset=0.3, reason="reference moved by +35%", kept=False),
    BlockRecord(index=2, at_s=2.0, offset=0.01, reason=None, kept=True),
)
RESULT = MeasuringResult(
    environment={"device": {"cpu_model": "x"}, "before": {"load_average": [0.1, 0.2]}},
    session=SessionSummary(
        noisy=False,
        noise_floor=0.01,
        drift=0.005,
        num_blocks=2,
        retried_blocks=1,
        disturbed_blocks=0,
        duration_s=3.0,
        blocks=BLOCKS,
    ),
    peaks={"flops_per_s": {"fp32": 1e11, "int8": 2e11}, "bytes_per_s": 1e10},
    anchors=tuple(answered(network) for network in SPEC.anchors),
    measurements=tuple(answered(network) for network in SPEC.networks),
)
DATA = json.loads(json.dumps(RESULT.to_dict()))


def test_an_answer_survives_json() -> None:
    assert MeasuringResult.from_dict(DATA, SPEC) == RESULT
    assert RESULT.reference.key == "reference"
    assert RESULT.measurement("small-anchor") == RESULT.anchors[2]
    with pytest.raises(KeyError):
        RESULT.measurement("n1")


def test_noisy_blocks_are_named() -> None:
    (noisy,) = DATA["session"]["noisy_blocks"]
    assert noisy["index"] == 1
    assert noisy["reason"] == "reference moved by +35%"
    assert DATA["session"]["anchor_offsets"] == [0.0, 0.3, 0.01]


def test_keys_of_a_newer_agent_and_absent_peaks_are_accepted() -> None:
    data = {**DATA, "colour": "blue", "peaks": None}
    assert MeasuringResult.from_dict(data, SPEC).peaks == {}


def poison(value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data["measurements"][1]["rounds_ms"][0][1] = value

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0, 4e6, None, "1", [1.0]])
def test_a_sample_that_is_no_time_is_refused_by_its_path(value: object) -> None:
    data = copy.deepcopy(DATA)
    poison(value)(data)
    with pytest.raises(InvalidInput) as caught:
        MeasuringResult.from_dict(data, SPEC)
    assert caught.value.field == "measurements[1].rounds_ms[0][1]"


def changed(**changes: object) -> dict[str, Any]:
    return {**copy.deepcopy(DATA), **changes}


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (changed(measurements=[]), "measurements"),
        (changed(measurements=DATA["measurements"][:1]), "measurements"),
        (changed(measurements=DATA["measurements"] * 2), "measurements[2].key"),
        (changed(measurements=DATA["measurements"][::-1]), "measurements"),
        (
            changed(measurements=[*DATA["measurements"], {**DATA["anchors"][0], "key": "n9"}]),
            "measurements[2].key",
        ),
        (changed(anchors=[]), "anchors"),
        (changed(anchors=DATA["anchors"][:2]), "anchors"),
        (changed(session={**DATA["session"], "noise_floor": float("nan")}), "session.noise_floor"),
        (changed(session={**DATA["session"], "noisy": "no"}), "session.noisy"),
        (changed(session=None), "session"),
        (
            changed(session={**DATA["session"], "blocks": [{"index": -1}]}),
            "session.blocks[0].index",
        ),
        (changed(environment={"before": {"load": float("nan")}}), "environment.before.load"),
        (changed(environment=7), "environment"),
        (
            changed(peaks={"flops_per_s": {"fp32": -1.0}, "bytes_per_s": 1.0}),
            "peaks.flops_per_s.fp32",
        ),
        (changed(peaks={"flops_per_s": {}, "bytes_per_s": "fast"}), "peaks.bytes_per_s"),
        ([], "body"),
        (None, "body"),
    ],
)
def test_an_answer_to_something_else_is_refused(data: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        MeasuringResult.from_dict(data, SPEC)
    assert caught.value.field == field


def test_a_subnet_that_was_not_asked_for_is_refused() -> None:
    data = copy.deepcopy(DATA)
    data["measurements"][0]["subnet"]["ffn_dim"][0] = 8
    with pytest.raises(InvalidInput, match=r"measurements\[0\]\.subnet"):
        MeasuringResult.from_dict(data, SPEC)
