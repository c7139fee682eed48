"""Which of the evaluated networks are worth a training: those that are believed to be best.

The best of many evaluations is as a rule one that was lucky. What networks like it showed says how
much of it was luck: a surrogate fitted to all of them tells a quality that is less noisy than
each one's own evaluation (`python -m benchmarks.choosing`).
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
