"""A model's config.json, read with suspicion: every value is checked before it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from search.errors import InvalidInput

CONFIG_FILE = "config.json"
PER_LAYER_KEY = "per_layer_config"
MAX_SIZE = 2**24
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}


def activation_name(activation: str) -> str:
    """As config.json has it."""
    return next(name for name, ours in ACTIVATIONS.items() if ours == activation)


class Config:
    """Typed access; whatever does not fit is an `InvalidInput` that names the key."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    @property
    def model_type(self) -> Any:
        return self._data.get("model_type")

    def has(self, key: str) -> bool:
        return key in self._data

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

    def expect_every(self, key: str, value: str) -> None:
        """The same for a list with an entry for each layer."""
        entries = self._data.get(key)
        if entries is None:
            return
        if not isinstance(entries, list):
            raise InvalidInput(CONFIG_FILE, f"{key} must be a list, got {entries!r:.80}")
        for entry in entries:
            if entry != value:
                raise InvalidInput(
                    CONFIG_FILE, f"{key} {entry!r:.80} is unsupported; supported: {value!r}"
                )

    def choice(self, key: str, known: Sequence[str]) -> str:
        value = self._data.get(key)
        if value not in known:
            raise InvalidInput(
                CONFIG_FILE, f"{key} must be one of {', '.join(known)}, got {value!r:.80}"
            )
        return str(value)

    def places(self, key: str, num_layers: int) -> tuple[int, ...]:
        """Layers, ascending."""
        value = self._data.get(key, [])
        known = range(num_layers)
        if not isinstance(value, list) or any(type(v) is not int or v not in known for v in value):
            raise InvalidInput(
                CONFIG_FILE,
                f"{key} must be a list of layers below {num_layers}, got {value!r:.80}",
            )
        return tuple(sorted(set(value)))

    def part(self, key: str) -> Config:
        """An object within."""
        return Config(_object(key, self._data.get(key)))

    @property
    def has_own_layers(self) -> bool:
        """Whether layers differ from what the rest says."""
        return bool(self._data.get(PER_LAYER_KEY))

    def layers(self, num_layers: int) -> list[Config]:
        """For each layer, the config of a model whose layers are all like it."""
        different: dict[int, Mapping[str, Any]] = {}
        for key, own in _object(PER_LAYER_KEY, self._data.get(PER_LAYER_KEY) or {}).items():
            # Saved again by transformers, a number has zeros in front.
            if not (re.fullmatch("[0-9]{1,9}", key) and int(key) < num_layers):
                raise InvalidInput(
                    CONFIG_FILE, f"{PER_LAYER_KEY} names {key!r:.80}, of {num_layers} layers"
                )
            different[int(key)] = _object(f"{PER_LAYER_KEY}.{key}", own)
        return [Config({**self._data, **different.get(i, {})}) for i in range(num_layers)]

    def num_labels(self, largest: int) -> int:
        """As many as are named."""
        labels = _object("id2label", self._data.get("id2label"))
        if not 1 <= len(labels) <= largest:
            raise InvalidInput(CONFIG_FILE, f"id2label must name 1 to {largest} labels")
        return len(labels)

    def rope_theta(self) -> float:
        """Base of the rotary angles, by its old key or by transformers 5's `rope_parameters`.

        Where several are given, that counts which transformers takes: within an object before
        beside it, `rope_scaling` before `rope_parameters`.
        """
        self.expect(partial_rotary_factor=1.0)
        rope_theta = self.number("rope_theta", 10_000.0, 1.0, 1e12)
        for key in ("rope_scaling", "rope_parameters"):
            given = self._data.get(key)
            if given is not None and not isinstance(given, dict):
                raise InvalidInput(CONFIG_FILE, f"{key} must be an object, got {given!r:.80}")
            if given:
                return _rope_theta_within(key, given, rope_theta)
        return rope_theta

    def is_saved_as(self, kind: str) -> bool:
        """Whether the class that saved the model ends so; where none is named, it may."""
        classes = self._data.get("architectures")
        if not isinstance(classes, list) or not classes:
            return True
        return any(isinstance(name, str) and name.endswith(kind) for name in classes)

    def head_dim(self, embed_dim: int, embed_key: str, num_heads: int, heads_key: str) -> int:
        """The stream's width shared out, unless the config says otherwise.

        The library's classes do not ask for it; where it differs, the tensors have the last word.
        """
        if self._data.get("head_dim") is not None:
            return self.size("head_dim")
        if embed_dim % num_heads:
            raise InvalidInput(
                CONFIG_FILE,
                f"{embed_key} {embed_dim} must be a multiple of {heads_key} {num_heads}",
            )
        return embed_dim // num_heads


def _object(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(CONFIG_FILE, f"{key} must be an object, got {value!r:.80}")
    return value


def _rope_theta_within(key: str, given: Mapping[str, Any], default: float) -> float:
    kind = given.get("rope_type", given.get("type", "default"))
    if kind != "default":
        raise InvalidInput(
            CONFIG_FILE, f"{key} of type {kind!r:.80} is unsupported; supported: 'default'"
        )
    nested = [name for name, value in given.items() if isinstance(value, dict)]
    if nested:
        raise InvalidInput(
            CONFIG_FILE, f"{key} differs by layers ({nested[0]!r:.80}), which is unsupported"
        )
    rope = Config(given)
    rope.expect(partial_rotary_factor=1.0)
    return rope.number("rope_theta", default, 1.0, 1e12)
