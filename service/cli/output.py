"""How data are shown: a table for people, JSON or YAML for programs. Data alone are on standard
output; what happens meanwhile is told on standard error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, TypeAlias

import typer
import yaml
from pydantic import BaseModel


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Format, typer.Option("--output", "-o", help="How data are shown.")]

Data: TypeAlias = BaseModel | Mapping[str, Any] | Sequence[BaseModel | Mapping[str, Any] | str]


def show(data: Data, output: Format, print_it: Callable[[], object]) -> None:
    """The data as JSON or YAML, or as `print_it` prints them for people."""
    if output is Format.TABLE:
        print_it()
    elif output is Format.JSON:
        typer.echo(json.dumps(_plain(data), indent=2, ensure_ascii=False))
    else:
        text = yaml.safe_dump(_plain(data), sort_keys=False, allow_unicode=True, width=99)
        typer.echo(text, nl=False)


def tell(message: str) -> None:
    """Something that is no data."""
    typer.echo(message, err=True)


def _plain(data: Any) -> Any:
    if isinstance(data, BaseModel):
        return data.model_dump(mode="json")
    if isinstance(data, Mapping):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [_plain(item) for item in data]
    return data
