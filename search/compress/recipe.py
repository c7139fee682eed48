"""A recipe: which techniques are applied to a network, in which order and how. No torch.

A stage is plain data; what it does stands with its handler (`search.compress.stages`). Recipes are
read from JSON through the list of known stages alone, so that a file can name nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Self, TypeVar

from search.errors import InvalidInput

VERSION = 1

Phase = Literal["structure", "training", "sparsity", "rounding"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """Settings of one technique.

    Attributes:
        kind: its name in a recipe.
        phase: what it changes; see `CompressionRecipe.check_order`.
    """

    kind: ClassVar[str]
    phase: ClassVar[Phase]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    def require(self, holds: bool, name: str, wanted: str) -> None:
        """Raises: InvalidInput naming the setting, unless `holds`."""
        if not holds:
            found = getattr(self, name)
            raise InvalidInput(f"{self.kind}.{name}", f"must be {wanted}, got {found!r}")


C = TypeVar("C", bound=StageConfig)
_KINDS: dict[str, type[StageConfig]] = {}


def stage_kind(kind: str, phase: Phase) -> Callable[[type[C]], type[C]]:
    """Makes a config known to recipes under a name."""

    def register(config: type[C]) -> type[C]:
        config.kind, config.phase = kind, phase
        _KINDS[kind] = config
        return config

    return register


def stage_from_dict(data: Mapping[str, Any], field: str = "stage") -> StageConfig:
    """Raises: InvalidInput naming what is unknown or does not fit."""
    kind = data.get("kind")
    if kind not in _KINDS:
        raise InvalidInput(f"{field}.kind", f"{kind!r} is not one of {sorted(_KINDS)}")
    config = _KINDS[kind]
    known = {entry.name for entry in fields(config)}
    settings = {name: value for name, value in data.items() if name != "kind"}
    if unknown := sorted(settings.keys() - known):
        raise InvalidInput(f"{field}.{unknown[0]}", f"{kind} has {sorted(known)}")
    return config(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressionRecipe:
    """Stages in the order in which they are applied."""

    stages: tuple[StageConfig, ...]
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise InvalidInput("recipe.version", f"{VERSION} is read here, got {self.version}")
        check_order(self.stages)

    def to_dict(self) -> dict[str, Any]:
        return {"version": self.version, "stages": [stage.to_dict() for stage in self.stages]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises: InvalidInput naming the stage and its setting."""
        stages = data.get("stages")
        if not isinstance(stages, list) or not all(isinstance(s, Mapping) for s in stages):
            raise InvalidInput("recipe.stages", "must be a list of objects")
        return cls(
            stages=tuple(
                stage_from_dict(stage, f"recipe.stages[{place}]")
                for place, stage in enumerate(stages)
            ),
            version=data.get("version", VERSION),
        )


def check_order(stages: Sequence[StageConfig]) -> None:
    """Raises: InvalidInput where a stage would undo or could not follow an earlier one."""
    for place, stage in enumerate(stages):
        before = {earlier.phase: earlier for earlier in stages[:place]}
        for phase, reason in _CANNOT_FOLLOW[stage.phase].items():
            if phase in before:
                raise InvalidInput(
                    f"recipe.stages[{place}]",
                    f"{stage.kind} cannot follow {before[phase].kind}: {reason}",
                )


_CANNOT_FOLLOW: Mapping[Phase, Mapping[Phase, str]] = {
    "structure": {
        "sparsity": "the zeros were chosen for the units that there were",
        "rounding": "rounded weights are final",
    },
    "training": {
        "rounding": "rounded weights are final; a stage that trains under rounding is"
        " `quantize` with `aware_epochs`"
    },
    "sparsity": {"rounding": "rounded weights are final"},
    "rounding": {"rounding": "weights are rounded once"},
}
