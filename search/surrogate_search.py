"""NSGA-II on a learned model: only the most promising of its networks are evaluated.

The idea is LINAS's (arXiv 2202.12954, section 3.2): evolution runs on predictions, which cost
nothing, and the model is refitted each generation. Here the objectives that are known of any
network are never modelled, and a generation is chosen by expected gain of hypervolume, each choice
being taken for evaluated before the next: that keeps a generation diverse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from search.evolution import Ask, SearchTask
from search.genotypes import Genotype, extreme_genotypes
from search.improvement import Guesses, expected_improvement
from search.objectives import Floats, to_losses
from search.pareto import best_first
from search.space import SubnetConfig
from search.surrogate import Belief, Surrogate, describe

INNER_POPULATION = 100
INNER_GENERATIONS = 15
FIRST_POOL = 600  # random networks among which the first generation is spread out
MAX_CHOSEN_FROM = 600
MAX_FITTED = 600  # a fit takes a second then; the networks nearest to the front are kept
CROSSOVER_RATE = 0.9

Rng = np.random.Generator
Places = npt.NDArray[np.int64]  # (networks, genes): which of its choices each gene has


def propose(ask: Ask) -> Iterator[Genotype]:
    """The `population` networks to evaluate next, best first, then no more."""
    rng = np.random.default_rng(ask.seed)
    pool = _Pool(ask.task, {ask.task.space.decode(r.genotype).fingerprint for r in ask.history})
    if len(ask.history) < 2:
        chosen = _spread_out(pool, ask.population, rng)
    else:
        experience = _Experience(ask)
        _evolve(pool, experience, rng)
        chosen = _most_improving(pool, experience, ask.population)
    yield from (pool.genotype(place) for place in chosen)


class _Pool:
    """Networks that may be evaluated: feasible, distinct and not seen before."""

    def __init__(self, task: SearchTask, seen: set[str]) -> None:
        self.task = task
        self.choices = task.space.gene_choices
        self.subnets: list[SubnetConfig] = []
        self.features = describe(task.space, [])
        self.known = known_losses(task, [])
        self.places: Places = np.empty((0, len(self.choices)), dtype=np.int64)
        self._seen = set(seen)

    def __len__(self) -> int:
        return len(self.subnets)

    @property
    def num_choices(self) -> Places:
        return np.array([len(choices) for choices in self.choices.values()])

    def genotype(self, place: int) -> Genotype:
        return self._genotype(self.places[place])

    def places_of(self, genotype: Genotype) -> list[int]:
        return [choices.index(genotype[gene]) for gene, choices in self.choices.items()]

    def add(self, places: Places) -> slice:
        """Takes in those that are new and feasible; where they are now."""
        start = len(self)
        fresh: dict[str, tuple[int, SubnetConfig]] = {}
        for row, place in enumerate(places):
            subnet = self.task.space.decode(self._genotype(place))
            if subnet.fingerprint not in self._seen:
                fresh.setdefault(subnet.fingerprint, (row, subnet))
        self._seen |= fresh.keys()
        if fresh:
            items = list(fresh.values())
            are_feasible = self.task.are_feasible([subnet for _, subnet in items])
            self._append(places, [items[place] for place in np.flatnonzero(are_feasible)])
        return slice(start, len(self))

    def _append(self, places: Places, new: Sequence[tuple[int, SubnetConfig]]) -> None:
        if not new:
            return
        subnets = [subnet for _, subnet in new]
        self.subnets += subnets
        self.places = np.vstack([self.places, places[[row for row, _ in new]]])
        self.features = np.vstack([self.features, describe(self.task.space, subnets)])
        self.known = np.vstack([self.known, known_losses(self.task, subnets)])

    def _genotype(self, places: Places) -> Genotype:
        return {
            gene: choices[place]
            for (gene, choices), place in zip(self.choices.items(), places, strict=True)
        }


def known_losses(task: SearchTask, subnets: Sequence[SubnetConfig]) -> Floats:
    """Of the objectives that need no evaluation, (networks, known objectives)."""
    known = [objective for objective in task.objectives if not objective.is_learnt]
    return to_losses(known, task.known(subnets))


class _Experience:
    """What was evaluated, and what it teaches of all that was not."""

    def __init__(self, ask: Ask) -> None:
        task = ask.task
        losses = to_losses(task.objectives, [record.values for record in ask.history])
        nearest = best_first(losses)[:MAX_FITTED]
        self.losses = losses[nearest]
        self.genotypes = [dict(ask.history[place].genotype) for place in nearest]
        self.is_learnt = np.array([objective.is_learnt for objective in task.objectives])
        features = describe(task.space, [task.space.decode(g) for g in self.genotypes])
        self.models = {
            int(column): Surrogate.fit(features, self.losses[:, column])
            for column in np.flatnonzero(self.is_learnt)
        }

    @property
    def pivot(self) -> int:
        """A learnt objective; where all are known, the last."""
        return max(self.models, default=len(self.is_learnt) - 1)

    def reference(self, known: Floats) -> Floats:
        """The worst loss of each objective, of the evaluated networks and of those at hand."""
        worst: Floats = self.losses.max(axis=0)
        worst[~self.is_learnt] = np.maximum(worst[~self.is_learnt], known.max(axis=0))
        return worst

    def optimistic(self, features: Floats, known: Floats) -> Floats:
        """Losses one deviation below what is expected, (networks, objectives)."""
        guesses = self.guesses(features, known)
        return guesses.mean - guesses.deviation

    def guesses(self, features: Floats, known: Floats) -> Guesses:
        return self._combined(known, {c: m.predict(features) for c, m in self.models.items()})

    def beliefs(self, features: Floats) -> dict[int, Belief]:
        return {column: model.believe(features) for column, model in self.models.items()}

    def combined(self, known: Floats, beliefs: Mapping[int, Belief]) -> Guesses:
        return self._combined(known, {c: (b.mean, b.deviation) for c, b in beliefs.items()})

    def _combined(self, known: Floats, learnt: Mapping[int, tuple[Floats, Floats]]) -> Guesses:
        mean = np.zeros((len(known), len(self.is_learnt)))
        deviation = np.zeros_like(mean)
        mean[:, ~self.is_learnt] = known
        for column, (expected, spread) in learnt.items():
            mean[:, column], deviation[:, column] = expected, spread
        return Guesses(mean=mean, deviation=deviation)


def _spread_out(pool: _Pool, count: int, rng: Rng) -> list[int]:
    """The smallest and the largest feasible network, then whatever is farthest from all chosen."""
    extremes = [pool.places_of(genotype) for genotype in extreme_genotypes(pool.task.space)]
    pool.add(np.array(extremes))
    num_extremes = len(pool)
    pool.add(rng.integers(0, pool.num_choices, size=(FIRST_POOL, len(pool.num_choices))))
    if not len(pool):
        return []
    points = _even(np.hstack([pool.features, _even(pool.known)]))
    chosen = list(range(num_extremes)) or [0]
    distance = cdist(points, points[chosen]).min(axis=1)
    while len(chosen) < min(count, len(pool)):
        farthest = int(distance.argmax())
        chosen.append(farthest)
        distance = np.minimum(distance, cdist(points, points[[farthest]])[:, 0])
    return chosen[:count]


def _even(columns: Floats) -> Floats:
    spread = columns.std(axis=0)
    return np.asarray((columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _evolve(pool: _Pool, experience: _Experience, rng: Rng) -> None:
    """NSGA-II on optimistic predictions; whatever it visits joins the pool."""
    individuals = [np.array([pool.places_of(genotype) for genotype in experience.genotypes])]
    losses = [experience.losses]
    num_genes = len(pool.num_choices)
    children = rng.integers(0, pool.num_choices, size=(INNER_POPULATION, num_genes))
    for _ in range(INNER_GENERATIONS):
        new = pool.add(children)
        individuals.append(pool.places[new])
        losses.append(experience.optimistic(pool.features[new], pool.known[new]))
        elite = best_first(np.vstack(losses))[:INNER_POPULATION]
        children = _children(np.vstack(individuals)[elite], pool.num_choices, rng)


def _children(parents: Places, num_choices: Places, rng: Rng) -> Places:
    """As many as there are parents: uniform crossover, then a gene or so drawn anew."""
    mothers, fathers = rng.integers(0, len(parents), size=(2, len(parents)))
    is_crossed = rng.random((len(parents), 1)) < CROSSOVER_RATE
    from_father = is_crossed & (rng.random(parents.shape) < 0.5)
    children = np.where(from_father, parents[fathers], parents[mothers])
    is_mutated = rng.random(parents.shape) < 1 / parents.shape[1]
    return np.where(is_mutated, rng.integers(0, num_choices, size=parents.shape), children)


def _most_improving(pool: _Pool, experience: _Experience, count: int) -> list[int]:
    """Places of networks whose evaluations together promise most, chosen one after another.

    Once chosen, a network counts as evaluated to what was predicted (kriging believer, Ginsbourger
    et al., 2010), which also makes the model surer of its likes.
    """
    if not len(pool):
        return []
    reference = experience.reference(pool.known)
    guesses = experience.guesses(pool.features, pool.known)
    gains = expected_improvement(experience.losses, reference, guesses, pivot=experience.pivot)
    places = np.argsort(-gains, kind="stable")[:MAX_CHOSEN_FROM]
    beliefs = experience.beliefs(pool.features[places])
    losses, chosen = experience.losses, np.zeros(len(places), dtype=np.bool_)
    order = []
    for _ in range(min(count, len(places))):
        guesses = experience.combined(pool.known[places], beliefs)
        gains = expected_improvement(losses, reference, guesses, pivot=experience.pivot)
        best = int(np.where(chosen, -np.inf, gains).argmax())
        chosen[best] = True
        order.append(int(places[best]))
        losses = np.vstack([losses, guesses.mean[best]])
        beliefs = {column: belief.having_seen(best) for column, belief in beliefs.items()}
    return order
