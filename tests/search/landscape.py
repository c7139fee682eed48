"""A made-up supernet whose every network is known at once: to search without training anything."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from search.evolution import EvaluatedGenotype, Sampler, SearchTask, ask_generation
from search.objectives import LATENCY, QUALITY, SIZE, Floats
from search.space import SearchSpace, SubnetConfig


class Landscape:
    """Accuracy saturates with the layers' worth, neighbours interact, and every network has a
    whim of its own, as measured ones do; latency is a sum over layers that int8 shortens."""

    def __init__(self, space: SearchSpace, *, seed: int = 0, whim: float = 0.004) -> None:
        rng = random.Random(seed)
        self.space = space
        self._seed, self._whim = seed, whim
        layers = range(len(space.layer_order))
        self._worth = [rng.uniform(0.3, 1.0) for _ in layers]
        self._by_heads = [rng.uniform(0.2, 0.8) for _ in layers]
        self._together = [rng.uniform(-0.25, 0.25) for _ in layers]
        self._fragile = rng.uniform(0.0, 0.02)
        self.quality = lru_cache(maxsize=None)(self._quality)

    def latency_ms(self, subnet: SubnetConfig) -> float:
        widths = zip(subnet.num_heads, subnet.ffn_dim, strict=True)
        total = sum(
            0.1 + 0.5 * heads / self.space.num_heads[-1] + ffn / self.space.ffn_dim[-1]
            for heads, ffn in widths
        )
        return 0.2 + total * (0.55 if subnet.precision == "int8" else 1.0)

    def task(self, *, limit_ms: float = math.inf) -> SearchTask:
        def known(subnets: Sequence[SubnetConfig]) -> Floats:
            return np.array([self.latency_ms(s) for s in subnets]).reshape(-1, 1)

        return SearchTask(
            space=self.space,
            objectives=(LATENCY, QUALITY),
            known=known,
            are_feasible=lambda subnets: known(subnets)[:, 0] <= limit_ms,
        )

    def _quality(self, subnet: SubnetConfig) -> float:
        parts = []
        for layer, heads, ffn in zip(subnet.layers, subnet.num_heads, subnet.ffn_dim, strict=True):
            share = self._by_heads[layer]
            width = share * (heads / self.space.num_heads[-1]) ** 0.5
            width += (1 - share) * (ffn / self.space.ffn_dim[-1]) ** 0.5
            parts.append(self._worth[layer] * width)
        worth = sum(parts)
        worth += sum(
            self._together[layer] * one * other
            for layer, one, other in zip(subnet.layers, parts, parts[1:], strict=False)
        )
        quality = 0.5 + 0.35 * (1 - math.exp(-0.8 * worth))
        if subnet.precision == "int8":
            quality -= self._fragile
        whim = random.Random(f"{self._seed}/{subnet.fingerprint}").gauss(0, self._whim)
        return quality + whim


def search(
    landscape: Landscape,
    task: SearchTask,
    sampler: Sampler,
    *,
    generations: int,
    population: int,
    seed: int,
    history: Sequence[EvaluatedGenotype] = (),
) -> list[EvaluatedGenotype]:
    """Goes on from `history` up to `generations`, as a resumed search does."""
    records = list(history)
    for generation in range(max((r.generation for r in records), default=-1) + 1, generations):
        children = ask_generation(
            task, records, sampler, generation=generation, population=population, seed=seed
        )
        records += [
            EvaluatedGenotype(
                generation=generation,
                index=index,
                genotype=child.genotype,
                values=task.values_of(child.subnet, {"quality": landscape.quality(child.subnet)}),
            )
            for index, child in enumerate(children)
        ]
    return records


def with_size(task: SearchTask) -> SearchTask:
    """The same task with a third objective, known as latency is: one byte a unit of width."""

    def known(subnets: Sequence[SubnetConfig]) -> Floats:
        sizes = [sum(s.num_heads) * 8 + sum(s.ffn_dim) for s in subnets]
        return np.column_stack([task.known(subnets), np.array(sizes, dtype=np.float64)])

    latency, quality = task.objectives
    return replace(task, objectives=(latency, SIZE, quality), known=known)
