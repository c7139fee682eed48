"""A model's config.json, read with suspicion: every value is checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.errors import InvalidInput

CONFIG_FILE = "config.json"
MAX_SIZE = 2**24
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}


class Config:
    """Typed access; whatever does not fit is an `InvalidInput` that names the key."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    @property
    def model_type(self) -> Any:
        return self._data.get("model_type")

    def size(self, key: str, *, default: int | None = None, largest: int = MAX_SIZE) -> int:
        value = self._data.get(key)
        value = default if value is None else value
        if type(value) is not int or not 1 <= value <= largest:
            raise InvalidInput(
                CONFIG_FILE, f"{key} must be a whole number from 1 to {largest}, got {value!r}"
            )
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self._data.get(key, default)
        if type(value) not in (int, float) or not low < value < high:
            raise InvalidInput(
                CONFIG_FILE, f"{key} must lie in ({low:g}, {high:g}), got {value!r}"
            )
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._data.get(key, default)
        if not isinstance(value, bool):
            raise InvalidInput(CONFIG_FILE, f"{key} must be true or false, got {value!r}")
        return value

    def activation(self, key: str, default: str) -> str:
        value = self._data.get(key, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise InvalidInput(CONFIG_FILE, f"{key} {value!r} is unsupported; supported: {known}")
        return ACTIVATIONS[value]

    def expect(self, **allowed: Any) -> None:
        """Refuse what would import without an error but compute something else.

        Args:
            allowed: by key, the one value that is understood; a key that is absent passes.
        """
        for key, value in allowed.items():
            if key in self._data and self._data[key] != value:
                raise InvalidInput(
                    CONFIG_FILE, f"{key} {self._data[key]!r} is unsupported; supported: {value!r}"
                )

    def rope_theta(self) -> float:
        """Base of the rotary angles, by its old key or by transformers 5's `rope_parameters`."""
        for key in ("rope_scaling", "rope_parameters"):
            scaling = self._data.get(key)
            if scaling is None:
                continue
            kind = scaling.get("rope_type", scaling.get("type")) if _is_object(scaling) else None
            if kind not in (None, "default"):
                raise InvalidInput(
                    CONFIG_FILE, f"{key} of type {kind!r} is unsupported; supported: 'default'"
                )
            if "rope_theta" in scaling:
                return Config(scaling).number("rope_theta", 10_000.0, 1.0, 1e12)
        return self.number("rope_theta", 10_000.0, 1.0, 1e12)

    def head_dim(self, embed_dim: int, embed_key: str, num_heads: int, heads_key: str) -> int:
        """Where it is the stream's width shared out."""
        if embed_dim % num_heads:
            raise InvalidInput(
                CONFIG_FILE,
                f"{embed_key} {embed_dim} must be a multiple of {heads_key} {num_heads}",
            )
        return embed_dim // num_heads


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)
