"""A recipe: which techniques are applied to a network, in which order and how. No torch.

A stage is plain data; what it does stands with its handler (`search.compress.stages`). Recipes are
read from JSON through the list of known stages alone, so that a file can name nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from types import UnionType
from typing import (
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from search.errors import InvalidInput

VERSION = 1

Phase = Literal["structure", "sharing", "training", "sparsity", "rounding"]


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
    hints = settings_of(config)
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in data.items()
        if name != "kind"
    }
    if unknown := sorted(settings.keys() - hints.keys()):
        raise InvalidInput(f"{field}.{unknown[0]}", f"{kind} has {sorted(hints)}")
    for name, value in settings.items():
        if not _is_a(value, hints[name]):
            wanted = getattr(hints[name], "__name__", str(hints[name]))
            raise InvalidInput(f"{field}.{name}", f"must be of type {wanted}, got {value!r}")
    try:
        return config(**settings)
    except InvalidInput as error:
        # A config names its setting by its kind, since it does not know where it stands.
        name = error.field.removeprefix(f"{kind}.")
        raise InvalidInput(f"{field}.{name}", error.reason) from None


def settings_of(config: type[StageConfig]) -> dict[str, Any]:
    """Types of a technique's settings, by name."""
    hints = get_type_hints(config)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}


def stage_kinds() -> Mapping[str, type[StageConfig]]:
    """Every technique that a recipe may name, by its name."""
    return dict(_KINDS)


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of a setting's type; a whole number is a float too."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_a(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if Ellipsis in arguments else arguments
        return isinstance(value, tuple) and all(map(_is_a, value, kinds))
    if hint is None:
        return value is None
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if hint is float:
        return isinstance(value, int | float) and isfinite(value)
    return isinstance(value, hint)


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
        "sharing": "units can only go from all layers alike that share their weights",
        "sparsity": "the zeros were chosen for the units that there were",
        "rounding": "rounded weights are final",
    },
    "sharing": {
        "sharing": "layers share their weights already",
        "sparsity": "the zeros were chosen for the layers that there were",
        "rounding": "rounded weights are final",
    },
    "training": {
        "rounding": "rounded weights are final; a stage that trains under rounding is"
        " `quantize` with `aware_epochs`"
    },
    "sparsity": {"rounding": "rounded weights are final"},
    "rounding": {"rounding": "weights are rounded once"},
}
