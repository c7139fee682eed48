"""How good candidates are on rows of the search split, looked at no more closely than is worth it.

See `search.halving` for when a candidate is given up, `search.training.together` for how several
are run at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from search.halving import Rivals, rungs
from search.model.transformer import ElasticTransformer
from search.objectives import Floats
from search.space import SubnetConfig
from search.training.evaluate import R, quality_of
from search.training.tasks import Scores
from search.training.together import CheckAbort, evaluate_together

ORDER_SEED = 0
FIRST_RUNG = 64
# What later candidates are compared on is kept with every evaluation: 4 kB of it at most.
MAX_COMPARED_ROWS = 1024
CONFIDENCE = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """`num_rows` were read: all, unless something as cheap was clearly better.

    Attributes:
        quality: on all rows; an estimate for a network that was given up.
        loss: mean over the answers of the rows that were read.
        scores: (rows,) of the first rows, for `Rivals`; their mean is the quality on them.
    """

    quality: float
    loss: float
    num_rows: int
    scores: Floats


def in_fair_order(rows: R) -> R:
    """The same rows, so that the first of them, however many, are like all of them."""
    order = np.random.default_rng(ORDER_SEED).permutation(len(rows))
    return rows.select(order.tolist())


def num_compared(num_rows: int) -> int:
    """Rows, of `num_rows`, on which candidates are compared before the rest is read."""
    counts = _rungs(num_rows)
    return counts[-2] if len(counts) > 1 else 0


def judge(
    supernet: ElasticTransformer,
    rows: R,
    subnets: Sequence[SubnetConfig],
    costs: Floats,
    rivals: Rivals | None,
    *,
    check_abort: CheckAbort = lambda: None,
) -> list[Judged]:
    """Each of `subnets` by the weights that it inherits, whatever the others are.

    Args:
        rows: see `in_fair_order`.
        costs: (networks, costs), as the rivals have them.
        rivals: judged before, on `num_compared` of the same rows at least; None: nothing is given
            up.
        check_abort: called before every batch; may raise.
    """
    found: dict[int, Judged] = {}
    seen: dict[int, Scores] = {}
    remaining = list(range(len(subnets)))
    start = 0
    for end in _rungs(len(rows)):
        part = rows.select(range(start, end))
        networks = [subnets[place] for place in remaining]
        read = evaluate_together(supernet, part, networks, check_abort=check_abort)
        for place, scores in zip(remaining, read, strict=True):
            seen[place] = _joined(seen[place], scores) if start else scores
        if end < len(rows) and rivals is not None:
            for place in remaining:
                one = _judged(supernet, seen[place], num_compared(len(rows)))
                quality = rivals.quality_of_beaten(one.scores, costs[place], confidence=CONFIDENCE)
                if quality is not None:
                    found[place] = Judged(
                        quality=quality, loss=one.loss, num_rows=end, scores=one.scores
                    )
        remaining = [place for place in remaining if place not in found]
        start = end
    for place in remaining:
        found[place] = _judged(supernet, seen[place], num_compared(len(rows)))
    return [found[place] for place in range(len(subnets))]


def _rungs(num_rows: int) -> tuple[int, ...]:
    compared = rungs(min(num_rows, 2 * MAX_COMPARED_ROWS), first=FIRST_RUNG)
    return compared if compared[-1] == num_rows else (*compared[:-1], num_rows)


def _joined(one: Scores, other: Scores) -> Scores:
    return Scores(*torch.cat([one.stacked(), other.stacked()], 1))


def _judged(supernet: ElasticTransformer, scores: Scores, compared: int) -> Judged:
    quality = quality_of(scores, supernet.shape)
    # Rows of many answers weigh as much here as they do in the quality.
    counts = scores.count[:compared]
    first = scores.score[:compared] / counts.mean().clamp(min=1e-9)
    return Judged(
        quality=quality.value,
        loss=quality.loss,
        num_rows=quality.num_rows,
        scores=first.numpy(),
    )
