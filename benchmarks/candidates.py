"""Recipes that may reach what `benchmarks.compression_figures` asks for; validation chooses.

Nothing in them knows the data. The stages' epochs are shares of one budget (`within_budget`).
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.techniques import AWARE, DISTIL, INT8, SPARSE, VOCABULARY, Stages
from search.compress.configs import DistillConfig, FactorizeConfig, PruneConfig
from search.compress.recipe import StageConfig

LONG_DISTIL = DistillConfig(epochs=3.0)  # thrice as long as the rounding that follows
HALF = PruneConfig(keep=0.5)
NARROW, NARROWER = FactorizeConfig(rank=0.5), FactorizeConfig(rank=0.25)
MAGNITUDE = replace(SPARSE, sparsity=0.9)
SECOND_ORDER = replace(MAGNITUDE, score="second-order")

SMALLER: tuple[Stages, ...] = (
    (NARROWER, HALF, DISTIL),
    (VOCABULARY, NARROW, HALF, DISTIL),
    (VOCABULARY, NARROWER, PruneConfig(keep=0.65), DISTIL),
)
SMALLEST: tuple[Stages, ...] = (
    (NARROWER, PruneConfig(keep=0.25), LONG_DISTIL, AWARE),
    (VOCABULARY, NARROW, PruneConfig(keep=0.25), LONG_DISTIL, AWARE),
    (VOCABULARY, NARROWER, PruneConfig(keep=0.15), LONG_DISTIL, AWARE),
)
ROUNDED: tuple[Stages, ...] = ((INT8,), (AWARE,))
RECOVERY: tuple[Stages, ...] = ((HALF,), (HALF, DISTIL))
SPARSITY: tuple[Stages, ...] = ((MAGNITUDE,), (SECOND_ORDER,))


TAUGHT: Stages = (LONG_DISTIL, AWARE)
"""In floating point and then under rounding: for what is fast enough."""

SEARCHED: tuple[Stages, ...] = (TAUGHT, (VOCABULARY, *TAUGHT), (VOCABULARY, DISTIL))
"""Of networks that a search found."""


def faster(structure: StageConfig) -> Stages:
    """A structure that is fast enough, taught."""
    return (structure, *TAUGHT)
