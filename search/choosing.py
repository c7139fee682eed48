"""Which of the evaluated networks are worth a training: those that are believed to be best.

The best of many evaluations is as a rule one that was lucky. What networks like it showed says how
much of it was luck: a surrogate fitted to all of them tells a quality that is less noisy than
each one's own evaluation (`python -m benchmarks.choosing`).

What a network gains by a training of its own depends on its depth: at an eighth of MiniLM's
latency three layers inherit 1.2 points more than four thin ones, and are 1.1 points behind once
both are distilled. So a shortlist has networks of several depths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search.objectives import Floats
from search.space import SearchSpace, SubnetConfig
from search.surrogate import Surrogate, describe

FEWEST = 12  # evaluations that tell more than each does of itself
MAX_FITTED = 600  # a fit takes a second then; the best are kept


def believed_qualities(
    space: SearchSpace, subnets: Sequence[SubnetConfig], qualities: Sequence[float]
) -> Floats:
    """What each quality is believed to be, given all of them; (networks,).

    Their own where they are too few, or all equal.

    Args:
        qualities: higher is better, each on as many rows.
    """
    own = np.asarray(qualities, dtype=np.float64)
    if len(own) < FEWEST or own.min() == own.max():
        return own
    fitted = np.argsort(-own, kind="stable")[:MAX_FITTED]
    features = describe(space, subnets)
    believed, _ = Surrogate.fit(features[fitted], own[fitted]).predict(features)
    return believed


def shortlist(subnets: Sequence[SubnetConfig], believed: Sequence[float], size: int) -> list[int]:
    """Places of those to train for a while: the best of each depth, then the best of the rest.

    Args:
        believed: quality of each, higher being better; of equals the first goes before.

    Returns:
        At most `size` places, the best believed first.
    """
    order = sorted(range(len(subnets)), key=lambda place: -believed[place])
    depths: set[int] = set()
    firsts: list[int] = []
    others: list[int] = []
    for place in order:
        depth = subnets[place].num_layers
        (others if depth in depths else firsts).append(place)
        depths.add(depth)
    return sorted([*firsts, *others][:size], key=order.index)
