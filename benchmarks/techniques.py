"""Recipes that are compared: techniques alone, in pairs, and in orders that are argued about.

Widths and layers are halved each, so that what has both is a quarter of the original's FLOPs. A
new kind of stage is a line in the table. Epochs say how a recipe's training is divided among its
stages: `within_budget` gives every recipe that trains as many in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from search.compress.configs import (
    DistillConfig,
    DistillRelationsConfig,
    FactorizeConfig,
    FactorizeFfnConfig,
    PruneAndDistillConfig,
    PruneConfig,
    QuantizeConfig,
    ShareLayersConfig,
    SparsifyConfig,
    TrimVocabularyConfig,
)
from search.compress.recipe import StageConfig
from search.shape import ModelShape

Group = Literal["alone", "pair", "order", "search"]
Stages = tuple[StageConfig, ...]
TRAINED = ("epochs", "aware_epochs")

WIDTHS = PruneConfig(keep=0.5)
DISTIL = DistillConfig()
LABELS = DistillConfig(soft=0.0, hard=1.0, hidden=0.0)
MAPS = DistillConfig(attention=0.5)
ROUNDS = PruneAndDistillConfig(keep=0.25)
SPARSE = SparsifyConfig(sparsity=0.8, epochs=1.0)
SURGEON = SparsifyConfig(sparsity=0.8, epochs=1.0, score="second-order")
VOCABULARY = TrimVocabularyConfig()
RANK = FactorizeConfig(rank=0.5)
FFN_RANK = FactorizeFfnConfig(rank=0.5)
SHARED = ShareLayersConfig(group=2)
INT8 = QuantizeConfig()
AWARE = QuantizeConfig(aware_epochs=1.0)
FP16 = QuantizeConfig(format="fp16")
INT4 = QuantizeConfig(format="int4")
TERNARY = QuantizeConfig(format="ternary", aware_epochs=1.0)


@dataclass(frozen=True, slots=True)
class Technique:
    """One recipe as a table names it."""

    group: Group
    name: str
    stages: Stages


def techniques(shape: ModelShape) -> tuple[Technique, ...]:
    """For a model of as many layers as the shape has. What its family refuses is in it too."""
    half = shape.num_layers // 2
    layers = PruneConfig(keep=1.0, num_layers=half)
    relations = DistillRelationsConfig(num_layers=half)
    rows: tuple[tuple[Group, str, Stages], ...] = (
        ("alone", "more training, nothing else", (DISTIL,)),
        ("alone", "half of the layers", (layers,)),
        ("alone", "half of heads and neurons", (WIDTHS,)),
        ("alone", "80 % zeros by magnitude", (replace(SPARSE, epochs=0.0),)),
        ("alone", "vocabulary in use", (VOCABULARY,)),
        ("alone", "word table of half the rank", (RANK,)),
        ("alone", "feed-forward matrices of half the rank", (FFN_RANK,)),
        ("alone", "int8", (INT8,)),
        ("alone", "fp16", (FP16,)),
        ("alone", "int4 weights", (INT4,)),
        ("pair", "layers, labels", (layers, LABELS)),
        ("pair", "layers, distil (DistilBERT)", (layers, DISTIL)),
        ("pair", "layers, distil with attention maps (TinyBERT)", (layers, MAPS)),
        ("pair", "layers and relations, distil (MiniLMv2)", (relations, DISTIL)),
        ("pair", "widths, labels", (WIDTHS, LABELS)),
        ("pair", "widths, distil", (WIDTHS, DISTIL)),
        ("pair", "layers, widths", (layers, WIDTHS)),
        ("pair", "layers, int8", (layers, INT8)),
        ("pair", "widths, int8", (WIDTHS, INT8)),
        ("pair", "distil under int8 (QAT)", (AWARE,)),
        ("pair", "distil under ternary weights", (TERNARY,)),
        ("pair", "80 % zeros while distilling", (SPARSE,)),
        ("pair", "80 % zeros, second order, while distilling", (SURGEON,)),
        ("pair", "vocabulary, distil", (VOCABULARY, DISTIL)),
        ("pair", "rank, distil", (RANK, DISTIL)),
        ("pair", "feed-forward rank, distil", (FFN_RANK, DISTIL)),
        ("pair", "layers shared by two, distil (ALBERT)", (SHARED, DISTIL)),
        ("order", "distil, prune, quantize", (layers, DISTIL, WIDTHS, INT8)),
        ("order", "prune, distil, quantize", (layers, WIDTHS, DISTIL, INT8)),
        ("order", "prune, quantize while distilling", (layers, WIDTHS, AWARE)),
        ("order", "prune, distil, quantize while distilling", (layers, WIDTHS, DISTIL, AWARE)),
        ("order", "distil, prune, quantize while distilling", (layers, DISTIL, WIDTHS, AWARE)),
        ("order", "distil, prune, distil, quantize", (layers, DISTIL, WIDTHS, DISTIL, INT8)),
        ("order", "prune in rounds with distilling, quantize", (ROUNDS, INT8)),
        ("order", "layers, zeros while distilling, quantize", (layers, SPARSE, INT8)),
        ("order", "quantize, prune", (INT8, layers, WIDTHS)),
    )
    return tuple(Technique(*row) for row in rows)


def within_budget(stages: Sequence[StageConfig], *, epochs: float, learning_rate: float) -> Stages:
    """The stages with `epochs` of training in all, in the shares that theirs have of each other.

    What does not train stays as it is.
    """
    whole = sum(trained_epochs(stage) for stage in stages)
    return tuple(
        replace(
            stage,
            **{name: getattr(stage, name) * epochs / whole for name in _trained(stage)},
            learning_rate=learning_rate,  # type: ignore[call-arg]  # what trains has one
        )
        if trained_epochs(stage)
        else stage
        for stage in stages
    )


def trained_epochs(stage: StageConfig) -> float:
    """Of the training split, that the stage learns for."""
    return float(sum(getattr(stage, name) for name in _trained(stage)))


def _trained(stage: StageConfig) -> list[str]:
    return [field.name for field in fields(stage) if field.name in TRAINED]
