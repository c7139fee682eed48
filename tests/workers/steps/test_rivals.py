from __future__ import annotations

import json

import numpy as np

from search.space import SubnetConfig
from service.jobs.evaluations import Evaluation
from workers.steps.rivals import SCORES, pack, rivals_among, unpack

SUBNET = SubnetConfig(layers=(0,), num_heads=(2,), ffn_dim=(8,))


def evaluation(fidelity: str, quality: float, state: dict[str, str] | None) -> Evaluation:
    return Evaluation(
        source="search",
        generation=0,
        index_in_generation=0,
        fingerprint="f",
        fidelity=fidelity,
        subnet=SUBNET.to_dict(),
        metrics={"quality": quality},
        state=state,
    )


def test_scores_survive_json() -> None:
    scores = np.array([0.0, 1.0, -0.25])
    assert unpack(json.loads(json.dumps(pack(scores)))).tolist() == scores.tolist()


def test_only_networks_that_were_judged_on_all_rows_are_rivals() -> None:
    packed = {SCORES: pack(np.array([0.0, 1.0]))}
    rivals = rivals_among(
        [
            evaluation("rows=4", 0.5, packed),
            evaluation("rows=2 of 4", 0.9, packed),
            evaluation("rows=8", 0.9, packed),
            evaluation("rows=4", 0.9, None),
        ],
        fidelity="rows=4",
        costs_of=lambda subnets: np.array([[subnet.num_layers] for subnet in subnets]),
    )
    assert rivals is not None
    assert rivals.qualities.tolist() == [0.5]
    assert rivals.scores.tolist() == [[0.0, 1.0]]
    assert rivals.costs.tolist() == [[1]]


def test_without_any_there_are_none() -> None:
    assert rivals_among([], fidelity="rows=4", costs_of=lambda _: np.zeros((0, 1))) is None
