"""The command line, from the functions that are its commands."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from service.cli.errors import MEANINGS
from service.cli.program import ABOUT, app
from service.reference.markdown import code, page, prose, table

NAME = "snugnet"
KINDS = {str: "text", Path: "path", int: "whole number", float: "number"}


@dataclass(frozen=True, slots=True)
class Command:
    """A function that is a command, by its full name."""

    path: str
    function: Callable[..., Any]

    @property
    def help(self) -> str:
        return prose(inspect.getdoc(self.function) or "")

    @property
    def summary(self) -> str:
        """The first sentence."""
        return self.help.split("\n\n")[0].split(". ")[0].rstrip(".")

    def parameters(self) -> Iterator[Parameter]:
        hints = get_type_hints(self.function, include_extras=True)
        for name, parameter in inspect.signature(self.function).parameters.items():
            kind, *notes = get_args(hints[name]) or (hints[name],)
            info = next((n for n in notes if isinstance(n, OptionInfo | ArgumentInfo)), None)
            if info is not None:
                yield Parameter(name, kind, info, parameter.default)


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument or an option of a command."""

    name: str
    kind: Any
    info: OptionInfo | ArgumentInfo
    default: Any

    @property
    def is_argument(self) -> bool:
        return isinstance(self.info, ArgumentInfo)

    @property
    def is_required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def metavar(self) -> str:
        name = self.info.metavar or self.name.upper()
        return name if self.is_required else f"[{name}]"

    @property
    def spellings(self) -> list[str]:
        plain = "--" + self.name.replace("_", "-")
        # Of what is given by place, an annotation takes the first for the default.
        given = [str(s) for s in (self.info.default, *(self.info.param_decls or ()))]
        given = [spelling for spelling in given if spelling.startswith("-")]
        if given:
            return [spelling for both in given for spelling in both.split("/")]
        return [plain, plain.replace("--", "--no-", 1)] if self.kind is bool else [plain]

    @property
    def value(self) -> str:
        """What is given after it; nothing after a flag."""
        if self.kind is bool:
            return ""
        if self.info.metavar:
            return code(self.info.metavar)
        return _kind(self.kind)

    @property
    def shown_default(self) -> str:
        if self.is_required:
            return "required"
        value = self.default.value if isinstance(self.default, Enum) else self.default
        if value is None or value is False or value == ():
            return ""
        if self.kind is bool:
            return "on"
        return code(value.as_posix() if isinstance(value, Path) else value)

    @property
    def variable(self) -> str:
        return code(self.info.envvar) if isinstance(self.info.envvar, str) else ""


def document() -> str:
    commands = list(_commands(app, NAME))
    overview = table(
        ("command", "does"),
        ((f"[`{c.path}`](#{c.path.replace(' ', '-')})", c.summary) for c in commands),
    )
    exit_codes = table(("exit code", "means"), ((str(c), m) for c, m in MEANINGS.items()))
    parts = [f"{ABOUT}\n\n{overview}", "## Exit codes", exit_codes]
    for command in commands:
        parts += [f"## {command.path}", *_described(command)]
    return page("Command line", *parts)


def _commands(group: typer.Typer, path: str) -> Iterator[Command]:
    """Every command with its full name. A group may be called by itself."""
    callback = group.registered_callback
    may_be_called = group.info.invoke_without_command is True or (
        callback is not None and callback.invoke_without_command is True
    )
    if may_be_called and callback is not None and callback.callback is not None:
        yield Command(path, callback.callback)
    for info in group.registered_commands:
        assert info.callback is not None
        name = info.name or info.callback.__name__.replace("_", "-")
        yield Command(f"{path} {name}", info.callback)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(inner.typer_instance, f"{path} {inner.name}")


def _described(command: Command) -> Iterator[str]:
    parameters = list(command.parameters())
    arguments = [p for p in parameters if p.is_argument]
    options = [p for p in parameters if not p.is_argument]
    usage = [command.path, *(a.metavar for a in arguments), *(["[OPTIONS]"] if options else [])]
    yield f"```text\n{' '.join(usage)}\n```"
    yield command.help
    yield table(("argument", "is"), ((code(a.metavar), a.info.help or "") for a in arguments))
    yield table(
        ("option", "value", "default", "variable", "is"),
        (
            (
                ", ".join(map(code, option.spellings)),
                option.value,
                option.shown_default,
                option.variable,
                option.info.help or "",
            )
            for option in options
        ),
    )


def _kind(kind: Any) -> str:
    inner = [one for one in get_args(kind) if one is not types.NoneType]
    if get_origin(kind) in (Union, types.UnionType, list, tuple):
        return _kind(inner[0])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(code(one.value) for one in kind)
    return KINDS[kind]
