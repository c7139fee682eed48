"""What earlier generations tell of how far a candidate has to be looked at."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

import numpy as np

from search.halving import Rivals
from search.objectives import Floats
from search.space import SubnetConfig
from service.jobs.evaluations import Evaluation

SCORES = "scores"
"""In the state of an evaluation, its score on the rows that candidates are compared on."""

CostsOf = Callable[[Sequence[SubnetConfig]], Floats]


def pack(scores: Floats) -> str:
    """As JSON can hold it: rounded to fp32, 4 bytes a row before base64."""
    return base64.b64encode(scores.astype("<f4").tobytes()).decode()


def unpack(packed: str) -> Floats:
    return np.frombuffer(base64.b64decode(packed), "<f4").astype(np.float64)


def rivals_among(
    evaluations: Sequence[Evaluation], *, fidelity: str, costs_of: CostsOf
) -> Rivals | None:
    """Those that were judged on all rows; None where there are none."""
    known = [
        (evaluation, unpack(evaluation.state[SCORES]))
        for evaluation in evaluations
        if evaluation.fidelity == fidelity and evaluation.state and SCORES in evaluation.state
    ]
    if not known:
        return None
    return Rivals(
        costs=costs_of([SubnetConfig.from_dict(evaluation.subnet) for evaluation, _ in known]),
        scores=np.stack([scores for _, scores in known]),
        qualities=np.array([evaluation.metrics["quality"] for evaluation, _ in known]),
    )
