"""Which subnets a step of elastic training trains. A pure function of the step: no torch."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from search.errors import InvalidInput
from search.space import SearchSpace, SubnetConfig

STRATEGIES = ("sandwich", "uniform")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How subnets are drawn.

    Attributes:
        strategy: `sandwich` trains the largest, the smallest and random ones (Yu and Huang, arXiv
            1903.05134, section 3.2); `uniform` random ones only (HAT, arXiv 2005.14187).
        num_random: random ones of a step.
        largest_every: of a sandwich, in how many steps the largest is trained once.
        is_balanced: whether choices are drawn without putting back, so that every choice of a
            gene is trained equally often (strict fairness, FairNAS, arXiv 1907.01845, section 3).
        width_first: share of the steps, the first ones, in which widths vary at full depth only
            (DynaBERT, arXiv 2004.04037, section 2.2).
    """

    strategy: str = "sandwich"
    num_random: int = 1
    largest_every: int = 1
    is_balanced: bool = True
    width_first: float = 0.0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InvalidInput("training.sampling", f"{self.strategy!r} is not in {STRATEGIES}")
        if self.num_random < 0 or (self.strategy == "uniform" and not self.num_random):
            raise InvalidInput("training.num_random", "a step needs a subnet to train")
        if self.largest_every < 1:
            raise InvalidInput("training.largest_every", "must be at least 1")
        if not 0 <= self.width_first < 1:
            raise InvalidInput("training.width_first", "must be from 0 to less than 1")


class SubnetSampler:
    """The subnets of every step of a training of `total_steps`, equal on every machine."""

    def __init__(
        self, space: SearchSpace, sampling: Sampling, *, total_steps: int, seed: int
    ) -> None:
        self.sampling = sampling
        self._seed = seed
        # Precision is chosen by the search, not trained: every subnet trains in fp32.
        self._space = replace(space, precision=("fp32",), precision_groups=1)
        self._wide = replace(self._space, num_layers=space.num_layers[-1:])
        self.num_width_steps = round(sampling.width_first * total_steps)

    def subnets_at(self, step: int) -> list[SubnetConfig]:
        """Largest first where it is one of them: it may teach the others."""
        space = self.space_at(step)
        drawn = [self._random(space, step, place) for place in range(self.sampling.num_random)]
        if self.sampling.strategy == "uniform":
            return drawn
        largest = [space.largest] if step % self.sampling.largest_every == 0 else []
        return [*largest, space.smallest, *drawn]

    def space_at(self, step: int) -> SearchSpace:
        """Of the stage that the step belongs to."""
        return self._wide if step < self.num_width_steps else self._space

    def _random(self, space: SearchSpace, step: int, place: int) -> SubnetConfig:
        if not self.sampling.is_balanced:
            return space.sample(random.Random(f"{self._seed}:{step}:{place}"))
        draw = step * self.sampling.num_random + place
        return space.decode(
            {gene: self._balanced(gene, c, draw) for gene, c in space.gene_choices.items()}
        )

    def _balanced(self, gene: str, choices: tuple[Any, ...], draw: int) -> Any:
        """Every run of as many draws as there are choices has each once, in a random order."""
        cycle, place = divmod(draw, len(choices))
        order = list(choices)
        random.Random(f"{self._seed}:{gene}:{cycle}").shuffle(order)
        return order[place]


def updates_per_choice(space: SearchSpace, sampling: Sampling, total_steps: int) -> float:
    """How often random subnets train the least trained choice of the space.

    That is a width of the least important layer, which only the deepest subnets have. The
    extremes of a sandwich are not counted: they are trained anyhow.
    """
    width_steps = round(sampling.width_first * total_steps)
    deep_draws = width_steps + (total_steps - width_steps) / len(space.num_layers)
    draws = sampling.num_random * total_steps
    by_gene = [
        sampling.num_random * deep_draws / max(len(space.num_heads), len(space.ffn_dim)),
        (draws - sampling.num_random * width_steps) / len(space.num_layers),
        draws / max(1, len(space.embed_dim)),
    ]
    return min(by_gene)
