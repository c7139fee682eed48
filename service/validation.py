"""Pydantic's errors as field and reason, in the words that a person who wrote the input needs."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from search.errors import InvalidInput


class WrongField(ValueError):
    """Raised by a model's validator to blame one of its fields, by a path relative to it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


def field_errors(
    errors: Sequence[Mapping[str, Any]], model: type[BaseModel] | None = None
) -> list[InvalidInput]:
    """One `InvalidInput` for each of `ValidationError.errors()`.

    Args:
        model: the model that was validated, to name the keys it knows.
    """
    return [_field_error(error, model) for error in errors]


def dotted(location: Sequence[str | int]) -> str:
    """("targets", 0, "budget_ms") -> "targets[0].budget_ms"."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def _field_error(error: Mapping[str, Any], model: type[BaseModel] | None) -> InvalidInput:
    location = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        return InvalidInput(dotted(location), _unknown_key(location, model))
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, WrongField):
        return InvalidInput(_joined(dotted(location), cause.field) or "body", cause.reason)
    if error["type"] == "missing":
        return InvalidInput(dotted(location), "is missing")
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return InvalidInput(dotted(location) or "body", message)


def _joined(path: str, rest: str) -> str:
    """A path and one relative to it, which may be empty or begin with an index."""
    return f"{path}{'' if not path or not rest or rest.startswith('[') else '.'}{rest}"


def _unknown_key(location: Sequence[str | int], model: type[BaseModel] | None) -> str:
    known = list(_model_at(model, location[:-1]).model_fields) if model else []
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"unknown key; did you mean {close[0]}?"
    return f"unknown key; known keys: {', '.join(known)}" if known else "unknown key"


def _model_at(model: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation), model)
    return model


def _models_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, types.UnionType, list):
        for argument in get_args(annotation):
            yield from _models_in(argument)
