"""Reading JSON that somebody else wrote: every value is of its type and within its bounds.

What is wrong is named by its path, as in `networks[3].subnet.ffn_dim`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from search.errors import InvalidInput

T = TypeVar("T")

MAX_NESTING = 8
MAX_TEXT = 4096


class Fields:
    """The keys of one JSON object. Absent keys take a default, or are refused without one."""

    def __init__(self, data: object, path: str) -> None:
        if not isinstance(data, Mapping):
            raise InvalidInput(path or "body", f"must be an object, not {_kind(data)}")
        self._data = data
        self.path = path

    def at(self, name: str) -> str:
        """The path of one key."""
        return f"{self.path}.{name}" if self.path else name

    def has(self, name: str) -> bool:
        return self._data.get(name) is not None

    def refuse_others(self, known: Sequence[str]) -> None:
        """Raises: InvalidInput at the first key that is not among `known`."""
        for name in self._data:
            if name not in known:
                raise InvalidInput(self.at(str(name)), f"unknown key; known: {', '.join(known)}")

    def text(self, name: str, default: str | None = None) -> str:
        value = self._value(name, default)
        if not isinstance(value, str):
            raise InvalidInput(self.at(name), f"must be text, not {_kind(value)}")
        if len(value) > MAX_TEXT:
            raise InvalidInput(self.at(name), f"is longer than {MAX_TEXT} characters")
        return value

    def integer(
        self, name: str, low: int, high: int | None = None, *, default: int | None = None
    ) -> int:
        return as_integer(self._value(name, default), self.at(name), low, high)

    def number(
        self,
        name: str,
        low: float = -math.inf,
        high: float = math.inf,
        *,
        default: float | None = None,
    ) -> float:
        return as_number(self._value(name, default), self.at(name), low, high)

    def flag(self, name: str, default: bool | None = None) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise InvalidInput(self.at(name), f"must be true or false, not {_kind(value)}")
        return value

    def items(
        self,
        name: str,
        read: Callable[[object, str], T],
        *,
        default: Sequence[T] | None = None,
    ) -> tuple[T, ...]:
        """A list, each item read by `read(item, path)`."""
        if default is not None and not self.has(name):
            return tuple(default)
        return as_items(self._value(name, None), self.at(name), read)

    def mapping(self, name: str, default: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """An object of any keys; only its numbers and its depth are checked."""
        value = self._value(name, default)
        if not isinstance(value, Mapping):
            raise InvalidInput(self.at(name), f"must be an object, not {_kind(value)}")
        check_storable(value, self.at(name))
        return value

    def value(self, name: str) -> object:
        """As it is; for a reader of its own."""
        return self._value(name, None)

    def _value(self, name: str, default: object) -> object:
        value = self._data.get(name)
        if value is None:
            value = default
        if value is None:
            raise InvalidInput(self.at(name), "is missing")
        return value


def as_integer(value: object, path: str, low: int, high: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(path, f"must be a whole number, not {_kind(value)}")
    if value < low:
        raise InvalidInput(path, f"must be at least {low}: {value}")
    if high is not None and value > high:
        raise InvalidInput(path, f"must be at most {high}: {value}")
    return value


def as_number(value: object, path: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number; NaN and infinities are never one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(path, f"must be a number, not {_kind(value)}")
    if not math.isfinite(value):
        raise InvalidInput(path, f"must be finite: {value}")
    if not low <= value <= high:
        raise InvalidInput(path, f"must be between {low:g} and {high:g}: {value}")
    return float(value)


def as_text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(path, f"must be text, not {_kind(value)}")
    return value


def as_items(value: object, path: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InvalidInput(path, f"must be a list, not {_kind(value)}")
    return tuple(read(item, f"{path}[{i}]") for i, item in enumerate(value))


def check_storable(value: object, path: str, depth: int = 0) -> None:
    """Raises: InvalidInput where a database's JSON would refuse it: NaN, infinities, no JSON."""
    if depth > MAX_NESTING:
        raise InvalidInput(path, f"is nested deeper than {MAX_NESTING} levels")
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_storable(item, f"{path}.{name}", depth + 1)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            check_storable(item, f"{path}[{i}]", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(path, f"must be finite: {value}")
    elif value is not None and not isinstance(value, str | int | float):
        raise InvalidInput(path, f"is no JSON value but {_kind(value)}")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return f"{type(value).__name__} {value!r}"[:80]
