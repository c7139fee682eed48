"""Which of the evaluated networks to train: by their own evaluation, or by what all of them tell?

The table of a small supernet's every network (`data/minilm_subnets.csv`) plays the truth. Searches
are drawn from it, half near its front and half at random; each network is evaluated with the
noise of a number of rows, and the best within five budgets are chosen by their own accuracy or by
`search.choosing`. What counts is what the chosen lack, in truth, of the best that was evaluated.
The noise is independent, as it would be were each network judged on rows of its own.

python -m benchmarks.choosing
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.common import report_result
from benchmarks.search_efficiency import Truth, load_truth
from benchmarks.subnet_table import TABLE
from search.choosing import believed_qualities
from search.objectives import Floats

BUDGETS = (1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8)
ROWS = (600, 1500)
EVALUATIONS = (64, 160)
RACED = (1, 3)
SEEDS = 40
NEAREST = 600  # to the front, from which half of a search is drawn
SPREAD = 0.01  # of the order in which they are near

Places = npt.NDArray[np.int64]


def main() -> int:
    truth = load_truth(TABLE)
    figures = {
        f"{rows} rows, {count} evaluations": _compare(truth, rows, count)
        for rows, count in itertools.product(ROWS, EVALUATIONS)
    }
    report_result("choosing", {"seeds": SEEDS, "points_lacking": figures})
    return 0


def _compare(truth: Truth, num_rows: int, count: int) -> dict[str, float]:
    """Mean points that the chosen lack, by the way to choose and how many are raced."""
    quality = -truth.losses[:, 1]
    lacking: dict[str, list[float]] = {}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        places = _search(truth, count, rng)
        own = rng.binomial(num_rows, quality[places]) / num_rows
        subnets = [truth.table.entries[place].subnet for place in places]
        believed = believed_qualities(truth.task.space, subnets, own.tolist())
        for within in _within_budgets(truth, places):
            for (name, scores), raced in itertools.product(
                (("own", own), ("believed", believed)), RACED
            ):
                gap = _gap(quality[places], scores, within, raced)
                lacking.setdefault(f"{name}, best of {raced}", []).append(100 * gap)
    return {name: float(np.mean(gaps)) for name, gaps in lacking.items()}


def _search(truth: Truth, count: int, rng: np.random.Generator) -> Places:
    """Places of the networks that a search might have evaluated."""
    nearness = truth.regret + rng.normal(0, SPREAD, len(truth.regret))
    near = np.argsort(nearness)[:NEAREST]
    drawn = [
        rng.choice(near, count // 2, replace=False),
        rng.choice(len(nearness), count - count // 2, replace=False),
    ]
    return np.unique(np.concatenate(drawn))


def _within_budgets(truth: Truth, places: Places) -> Sequence[Places]:
    latency_ms = truth.losses[:, 0]
    found = (np.flatnonzero(latency_ms[places] <= b * latency_ms.max()) for b in BUDGETS)
    return [within for within in found if len(within) > max(RACED)]


def _gap(quality: Floats, scores: Floats, within: Places, raced: int) -> float:
    """A race finds the best of those that enter it."""
    entered = within[np.argsort(-scores[within], kind="stable")[:raced]]
    return float(quality[within].max() - quality[entered].max())


if __name__ == "__main__":
    raise SystemExit(main())
