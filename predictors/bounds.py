"""What may be asked for at all: sizes of models, and subnets that lie within one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from typing import Any

from predictors.fields import Fields
from search.errors import InvalidInput
from search.families.registry import families
from search.shape import ModelShape
from search.space import SubnetConfig

# Far above any transformer's encoder, and low enough that no product of two overflows a machine.
SHAPE_BOUNDS: Mapping[str, int] = {
    "num_layers": 256,
    "embed_dim": 32_768,
    "num_heads": 512,
    "head_dim": 1024,
    "ffn_dim": 262_144,
    "vocab_size": 2_000_000,
    "max_seq_len": 131_072,
    "num_token_types": 1024,
    "num_labels": 1_000_000,
}
PHASES_OF_FAMILY: Mapping[str, tuple[str, ...]] = {f.name: f.phases for f in families()}


def read_shape(data: object, path: str = "shape") -> ModelShape:
    """Raises: InvalidInput naming the size that is missing, unknown or out of bounds."""
    fields = Fields(data, path)
    fields.refuse_others([f.name for f in dataclass_fields(ModelShape)])
    sizes: dict[str, Any] = {
        name: fields.integer(name, 1, highest) for name, highest in SHAPE_BOUNDS.items()
    }
    shape = ModelShape(
        family=fields.text("family"),
        norm_eps=fields.number("norm_eps", 0.0, 1.0, default=1e-12),
        **sizes,
    )
    check_shape(shape, path)
    return shape


def check_shape(shape: ModelShape, path: str = "shape") -> None:
    """Raises: InvalidInput naming the first size that no network can have."""
    if shape.family not in PHASES_OF_FAMILY:
        known = ", ".join(PHASES_OF_FAMILY)
        raise InvalidInput(f"{path}.family", f"{shape.family!r} is not one of: {known}")
    for name, highest in SHAPE_BOUNDS.items():
        value = getattr(shape, name)
        if not 1 <= value <= highest:
            raise InvalidInput(f"{path}.{name}", f"must be between 1 and {highest}: {value}")


def check_subnet(subnet: SubnetConfig, shape: ModelShape, path: str = "subnet") -> None:
    """Raises: InvalidInput where `subnet` is larger than `shape`, or empty."""
    if not subnet.layers:
        raise InvalidInput(f"{path}.layers", "at least one layer must be kept")
    for i, layer in enumerate(subnet.layers):
        _check_within(layer, 0, shape.num_layers - 1, f"{path}.layers[{i}]")
    for i, num_heads in enumerate(subnet.num_heads):
        _check_within(num_heads, 1, shape.num_heads, f"{path}.num_heads[{i}]")
    for i, ffn_dim in enumerate(subnet.ffn_dim):
        _check_within(ffn_dim, 1, shape.ffn_dim, f"{path}.ffn_dim[{i}]")


def _check_within(value: int, low: int, high: int, path: str) -> None:
    if not low <= value <= high:
        raise InvalidInput(path, f"the model has {low} to {high}, not {value}")
