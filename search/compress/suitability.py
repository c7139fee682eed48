"""Whether a network of a shape can take a stage, before anything is loaded. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from search.compress.configs import (
    STUDENT_SIZES,
    DistillConfig,
    DistillRelationsConfig,
    FactorizeConfig,
    FactorizeFfnConfig,
    LinearizeAttentionConfig,
    QuantizeConfig,
    ShareLayersConfig,
    TrimVocabularyConfig,
)
from search.compress.recipe import StageConfig
from search.errors import InvalidInput
from search.shape import ModelShape
from search.space import PRECISIONS

FILE_FORMATS: Mapping[str, tuple[str, ...]] = {
    "fp16": ("onnxruntime", "openvino"),
    # OpenVINO rounds activations on its own: within .03 of MiniLM's vectors.
    "int4": ("onnxruntime", "openvino"),
}
"""Formats of weights that an exported file has, beside a `SubnetConfig`'s own precisions, and the
runtimes that read it."""


def check_suits(config: StageConfig, shape: ModelShape) -> None:
    """Raises: InvalidInput, whose field is the kind or its setting, when the shape has no such
    part, or its task does not allow it."""
    check = _CHECKS.get(type(config))
    if check is not None:
        check(config, shape)


def check_recipe_suits(stages: Sequence[StageConfig], shape: ModelShape) -> None:
    """The same for stages in a row. Raises: InvalidInput naming the place."""
    for place, config in enumerate(stages):
        try:
            check_suits(config, shape)
        except InvalidInput as error:
            _, _, setting = error.field.partition(".")
            field = f"stages[{place}]" + (f".{setting}" if setting else "")
            raise InvalidInput(field, f"{config.kind}: {error.reason}") from None
        shape = replace(shape, **_MADE.get(type(config), {}))


def check_stored(
    stages: Sequence[StageConfig], runtimes: Mapping[str, Sequence[str]], user: str
) -> None:
    """Raises: InvalidInput naming the stage whose format no file has that a runtime reads.

    Args:
        runtimes: that the network may run in, with the precisions in which they compute.
        user: who runs it there, for the message.
    """
    able = {precision for precisions in runtimes.values() for precision in precisions}
    able |= {name for name, readers in FILE_FORMATS.items() if set(readers) & runtimes.keys()}
    for place, config in enumerate(stages):
        wanted = format_of(config)
        if wanted is not None and wanted not in able:
            raise InvalidInput(
                f"stages[{place}].format",
                f"{user} runs in {' or '.join(runtimes)}, which has no file of {wanted} weights "
                f"here; it has {', '.join(sorted(able))}",
            )


def is_simulated(stored: str) -> bool:
    """Whether no file holds such weights: a recipe tells what they would answer, nothing else."""
    return stored not in (*PRECISIONS, *FILE_FORMATS)


def format_of(config: StageConfig) -> str | None:
    """How a stage stores weights; None where it leaves that as it is."""
    wanted = getattr(config, "format", None)
    return None if wanted is None else str(wanted)


def _check_rounding(config: QuantizeConfig, shape: ModelShape) -> None:
    """Not every part has a form in whole numbers (`search.compress.integer`)."""
    if config.format != "int8-integer":
        return
    lacks = [
        part
        for part, is_there in (
            ("RMS norms", shape.norm != "layer"),
            (shape.activation, not shape.activation.startswith("gelu")),
            ("rotary positions", shape.positions == "rotary"),
            ("norms of queries", shape.has_qk_norm),
            ("gated neurons", shape.is_gated),
            ("linear attention", shape.attention == "linear"),
        )
        if is_there
    ]
    if lacks:
        raise InvalidInput(
            f"{config.kind}.format",
            f"must be another for {shape.family}: {', '.join(lacks)} have no integer form",
        )


def _check_trimming(config: TrimVocabularyConfig, shape: ModelShape) -> None:
    if shape.reads_images:
        raise InvalidInput(config.kind, "this model reads images, and has no vocabulary")
    if shape.task == "language-modelling" and config.min_count > 1:
        raise InvalidInput(
            f"{config.kind}.min_count",
            "must be 1 for a language model: its teacher speaks in whole tokens, and cannot say "
            "which piece of one comes next",
        )


def _check_factorizing(config: FactorizeConfig, shape: ModelShape) -> None:
    if shape.reads_images:
        raise InvalidInput(config.kind, "this model reads images, and has no word table")
    if shape.has_tied_head:
        raise InvalidInput(config.kind, "the word table is the head too, and cannot be narrower")
    if shape.word_rank:
        raise InvalidInput(config.kind, "the word table is one of a lower rank already")


def _check_low_rank(config: FactorizeFfnConfig, shape: ModelShape) -> None:
    if shape.ffn_rank:
        raise InvalidInput(config.kind, "feed-forward matrices are of a lower rank already")


def _check_linear(config: LinearizeAttentionConfig, shape: ModelShape) -> None:
    if shape.is_causal:
        raise InvalidInput(
            config.kind, "this model is causal, and linear attention reads all tokens at once"
        )
    if shape.attention == "linear":
        raise InvalidInput(config.kind, "attention is linear already")


def _check_distilling(config: DistillConfig, shape: ModelShape) -> None:
    if config.attention and shape.attention == "linear":
        raise InvalidInput(
            f"{config.kind}.attention",
            "must be 0: linear attention has no scores of pairs of tokens to learn",
        )


def _check_sharing(config: ShareLayersConfig, shape: ModelShape) -> None:
    if shape.layers_per_group > 1:
        raise InvalidInput(config.kind, "layers share their weights already")
    if not 1 < (config.group or shape.num_layers) <= shape.num_layers:
        raise InvalidInput(
            f"{config.kind}.group", f"must be from 2 to the {shape.num_layers} layers"
        )


def _check_relations(config: DistillRelationsConfig, shape: ModelShape) -> None:
    """Against the model as it was: the network that takes the stage may have less still."""
    for name in STUDENT_SIZES:
        limit = getattr(shape, name)
        config.require(getattr(config, name) <= limit, name, f"at most {limit}, the model's")
    group, width = shape.queries_per_group, shape.embed_dim
    config.require(config.num_heads % group == 0, "num_heads", f"a multiple of {group}")
    is_output = shape.task == "sentence-embedding" and config.embed_dim not in (0, width)
    config.require(not is_output, "embed_dim", "0: an embedding keeps the width of its vectors")
    if not config.teacher:
        depth = shape.num_layers
        config.require(config.teacher_layer <= depth, "teacher_layer", f"at most {depth}")


# What a shape has after a stage that is not done twice; of a rank, whatever it is.
_MADE: Mapping[type[StageConfig], Mapping[str, Any]] = {
    FactorizeConfig: {"word_rank": 1},
    FactorizeFfnConfig: {"ffn_rank": 1},
    LinearizeAttentionConfig: {"attention": "linear"},
}

# A config's check takes that config: the table says which.
_CHECKS: dict[type[StageConfig], Callable[[Any, ModelShape], None]] = {
    DistillRelationsConfig: _check_relations,
    TrimVocabularyConfig: _check_trimming,
    FactorizeConfig: _check_factorizing,
    QuantizeConfig: _check_rounding,
    FactorizeFfnConfig: _check_low_rank,
    LinearizeAttentionConfig: _check_linear,
    ShareLayersConfig: _check_sharing,
    DistillConfig: _check_distilling,
}
