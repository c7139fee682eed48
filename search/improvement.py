"""How much hypervolume an evaluation is expected to add to a front.

All figures are losses, better low. What the front leaves open is cut into columns along one
objective that is a guess, the pivot: in each column a network gains as far as it gets below the
column's floor. With one known objective beside the pivot the columns are those between the
front's networks, and the sum is exact; with more they are points that fill the space evenly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from scipy.stats import qmc

from search.objectives import Floats

NUM_POINTS = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Guesses:
    """Independent normal distributions of losses: (networks, objectives); known ones have 0."""

    mean: Floats
    deviation: Floats


def expected_improvement(
    front: Floats, reference: Floats, guesses: Guesses, *, pivot: int
) -> Floats:
    """Expected gain of hypervolume up to `reference`, (networks,).

    Args:
        front: losses (networks, objectives) of what was evaluated; dominated ones change nothing.
        pivot: the objective along which columns are cut; best one that is a guess.
    """
    others = [column for column in range(len(reference)) if column != pivot]
    inside = front[(front < reference).all(axis=1)]
    if len(others) == 1 and not guesses.deviation[:, others].any():
        floors, shares = _exact_columns(inside, reference, guesses, pivot, others[0])
    else:
        floors, shares = _even_columns(inside, reference, guesses, pivot, others)
    mean, deviation = guesses.mean[:, pivot, None], guesses.deviation[:, pivot, None]
    return np.asarray((shares * _expected_drop(floors, mean, deviation)).sum(axis=1))


def _exact_columns(
    front: Floats, reference: Floats, guesses: Guesses, pivot: int, other: int
) -> tuple[Floats, Floats]:
    """Floor of each column, (columns,), and what of its width each network covers."""
    order = np.lexsort((front[:, pivot], front[:, other]))
    edges = np.concatenate([[-np.inf], front[order, other], [reference[other]]])
    best = np.minimum.accumulate(front[order, pivot])
    floors = np.concatenate([[reference[pivot]], best])
    start = np.maximum(edges[None, :-1], guesses.mean[:, other, None])
    return floors, np.maximum(edges[None, 1:] - start, 0.0)


def _even_columns(
    front: Floats, reference: Floats, guesses: Guesses, pivot: int, others: list[int]
) -> tuple[Floats, Floats]:
    """The same for points of a Sobol sequence: a network covers those that it is as good as."""
    ideal = np.minimum(
        front[:, others].min(axis=0, initial=np.inf), guesses.mean[:, others].min(axis=0)
    )
    size = reference[others] - ideal
    points = ideal + size * qmc.Sobol(len(others), scramble=False).random(NUM_POINTS)
    covered = (front[:, None, others] <= points).all(axis=2)
    losses = np.where(covered, front[:, pivot, None], reference[pivot])
    floors = losses.min(axis=0, initial=reference[pivot])
    shares = np.full((len(guesses.mean), NUM_POINTS), np.prod(size) / NUM_POINTS)
    for place, column in enumerate(others):
        shares *= _probability_below(
            points[:, place], guesses.mean[:, column, None], guesses.deviation[:, column, None]
        )
    return floors, shares


def _probability_below(bound: Floats, mean: Floats, deviation: Floats) -> Floats:
    known = deviation <= 0
    guessed = ndtr((bound - mean) / np.where(known, 1.0, deviation))
    return np.where(known, bound >= mean, guessed)


def _expected_drop(floor: Floats, mean: Floats, deviation: Floats) -> Floats:
    """E[max(floor - loss, 0)] of a normal loss (Jones et al., J. Global Optimization 13, 1998)."""
    known = deviation <= 0
    spread = np.where(known, 1.0, deviation)
    z = (floor - mean) / spread
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    guessed = spread * (z * ndtr(z) + density)
    return np.where(known, np.maximum(floor - mean, 0.0), guessed)
