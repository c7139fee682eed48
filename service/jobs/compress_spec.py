"""The recipe of a job: stages by which every target's winner is compressed further."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, WithJsonSchema, model_validator

from search.compress import configs
from search.compress.recipe import CompressionRecipe, StageConfig, stage_kinds
from search.errors import InvalidInput
from service.schemas import Strict
from service.validation import WrongField

MAX_STAGES = 16
# Importing them is what makes the kinds of stages known to recipes.
assert configs.DistillConfig.kind in stage_kinds()


def _stage_schema() -> dict[str, Any]:
    """Every kind with its settings and their defaults, for the API's documentation."""
    kinds = []
    for kind, config in sorted(stage_kinds().items()):
        schema = TypeAdapter(config).json_schema()
        described = (config.__doc__ or "").strip().splitlines()
        kinds.append(
            {
                "type": "object",
                "title": kind,
                "description": " ".join(line.strip() for line in described),
                "properties": {"kind": {"const": kind}, **schema.get("properties", {})},
                "required": ["kind"],
                "additionalProperties": False,
            }
        )
    return {"oneOf": kinds}


Stage = Annotated[dict[str, Any], WithJsonSchema(_stage_schema())]


class CompressSpec(Strict):
    """Stages in the order in which they are tried on every target's winner, once it is distilled.
    A list of stages alone is a recipe too."""

    version: Literal[1] = 1
    stages: list[Stage] = Field(default_factory=list, max_length=MAX_STAGES)
    """Each a `kind` and its settings; those left out keep their defaults."""

    cost: Literal["latency_ms", "size_bytes", "flops", "num_params", "num_zeros"] = "size_bytes"
    """What a stage has to lower to be kept, or leave alone and raise quality; `num_zeros` is to
    rise."""

    max_loss: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    """Quality on the validation split that all stages together may cost: 0.01 is a point of
    accuracy. A target's own `min_quality` holds besides."""

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        try:
            recipe = CompressionRecipe.from_dict({"stages": self.stages})
        except InvalidInput as error:
            raise WrongField(error.field.removeprefix("recipe."), error.reason) from None
        # With every default written down, so that a repeated job is the same.
        object.__setattr__(self, "stages", recipe.to_dict()["stages"])
        return self

    @property
    def recipe(self) -> CompressionRecipe:
        return CompressionRecipe.from_dict({"stages": self.stages})


def check_sources(spec: CompressSpec, teachers: Collection[str], *, has_unlabelled: bool) -> None:
    """Whether a job names what its stages learn from, and nothing that none of them does.

    Raises:
        WrongField: of the job.
    """
    stages = spec.recipe.stages
    for place, stage in enumerate(stages):
        field, name = f"compress.stages[{place}]", teacher_of(stage)
        if name and name not in teachers:
            known = f"one of {sorted(teachers)}" if teachers else "empty, or in the job's teachers"
            raise WrongField(f"{field}.teacher", f"must be {known}, got {name!r}")
        if isinstance(stage, configs.DistillRelationsConfig) and not has_unlabelled:
            raise WrongField(
                f"{field}.kind",
                f"{stage.kind} learns from rows without labels: name a file as the job's "
                "unlabelled",
            )
    for name in sorted(set(teachers) - {teacher_of(stage) for stage in stages}):
        raise WrongField(f"teachers.{name}", "no stage of compress learns from it")
    if has_unlabelled and not any(
        isinstance(stage, configs.DistillRelationsConfig) for stage in stages
    ):
        kind = configs.DistillRelationsConfig.kind
        raise WrongField("unlabelled", f"no stage of compress is {kind}, which alone reads them")


def teacher_of(stage: StageConfig) -> str:
    """The name of who teaches in a stage; empty where that is the job's own model, or nobody."""
    return str(getattr(stage, "teacher", ""))


def _from_stages(given: Any) -> Any:
    return {"stages": given} if isinstance(given, list) else given


CompressField = Annotated[CompressSpec, BeforeValidator(_from_stages)]
