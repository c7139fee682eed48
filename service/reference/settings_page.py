"""The configuration of the server side, from its settings."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from service.reference.markdown import code, page, prose, table
from service.settings import PREFIX, Settings

INTRODUCTION = """\
Every setting of the API, the dispatcher, the checker, the workers and a measuring agent on the
same machine is a variable of the environment. Any of them may stand in a file instead, which the
variable with `_FILE` behind its name names
(`SNUGNET_DATABASE_URL_FILE=/run/secrets/database_url`); both at once is an error. `snugnet
config show` prints what a process would use, without passwords."""

KINDS = {
    Path: "path",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true`, `false`",
    SecretStr: "text, never shown",
}


def document() -> str:
    rows = (
        (code(PREFIX + name.upper()), _kind(field.annotation), _default(field), _meaning(field))
        for name, field in Settings.model_fields.items()
    )
    return page("Configuration", INTRODUCTION, table(("variable", "value", "default", "is"), rows))


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(map(code, inner))
    if origin in (Union, types.UnionType):
        return _kind(next(one for one in inner if one is not type(None)))
    if origin in (tuple, dict):
        return "JSON list" if origin is tuple else "JSON object"
    return KINDS[annotation]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, bool):
        return code(str(value).lower())
    if value is None or value in ("", (), {}):
        return ""
    return code(value)


def _meaning(field: FieldInfo) -> str:
    return prose(field.description or "")
