"""What may be asked for at all: sizes of models, and subnets that lie within one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from typing import Any

from predictors.fields import Fields
from search.errors import InvalidInput
from search.families.registry import families
from search.shape import ACTIVATIONS, ATTENTIONS, NORMS, POSITIONS, TASKS, ModelShape
from search.space import SubnetConfig
from search.weights import own_layer_sizes

# The least and the most of each size: far above any transformer, and low enough that no product of
# two overflows a machine.
SHAPE_BOUNDS: Mapping[str, tuple[int, int]] = {
    "num_layers": (1, 256),
    "embed_dim": (1, 32_768),
    "num_heads": (1, 512),
    "head_dim": (1, 1024),
    "ffn_dim": (1, 262_144),
    "vocab_size": (0, 2_000_000),
    "max_seq_len": (1, 131_072),
    "num_token_types": (0, 1024),
    "num_labels": (0, 2_000_000),
    "queries_per_group": (1, 512),
    "image_size": (0, 8192),
    "patch_size": (0, 8192),
    "num_channels": (0, 1024),
    "num_prefix_tokens": (0, 64),
    "word_rank": (0, 65_536),
    "ffn_rank": (0, 65_536),
    "layers_per_group": (1, 256),
}
SHAPE_CHOICES: Mapping[str, tuple[str, ...]] = {
    "task": TASKS,
    "norm": NORMS,
    "positions": POSITIONS,
    "activation": ACTIVATIONS,
    "attention": ATTENTIONS,
}
PHASES_OF_FAMILY: Mapping[str, tuple[str, ...]] = {f.name: f.phases for f in families()}


def read_shape(data: object, path: str = "shape") -> ModelShape:
    """Raises: InvalidInput naming the size that is missing, unknown or out of bounds."""
    fields = Fields(data, path)
    known = dataclass_fields(ModelShape)
    fields.refuse_others([field.name for field in known])
    values: dict[str, Any] = {}
    for field in known:
        name, default = field.name, None if field.default is MISSING else field.default
        if name in SHAPE_BOUNDS:
            values[name] = fields.integer(name, *SHAPE_BOUNDS[name], default=default)
        elif isinstance(default, bool):
            values[name] = fields.flag(name, default)
        elif isinstance(default, float):
            values[name] = fields.number(name, 0.0, default=default)
        else:
            values[name] = fields.text(name, default)
    shape = ModelShape(**values)
    check_shape(shape, path)
    return shape


def check_shape(shape: ModelShape, path: str = "shape") -> None:
    """Raises: InvalidInput naming the first size that no network can have."""
    if shape.family not in PHASES_OF_FAMILY:
        known = ", ".join(PHASES_OF_FAMILY)
        raise InvalidInput(f"{path}.family", f"{shape.family!r} is not one of: {known}")
    for name, (lowest, highest) in SHAPE_BOUNDS.items():
        value = getattr(shape, name)
        if not lowest <= value <= highest:
            raise InvalidInput(
                f"{path}.{name}", f"must be between {lowest} and {highest}: {value}"
            )
    for name, choices in SHAPE_CHOICES.items():
        if getattr(shape, name) not in choices:
            raise InvalidInput(
                f"{path}.{name}", f"{getattr(shape, name)!r} is not one of: {', '.join(choices)}"
            )
    if not 0 < shape.norm_eps < 1:
        raise InvalidInput(f"{path}.norm_eps", f"must lie in (0, 1): {shape.norm_eps}")
    if shape.num_heads % shape.queries_per_group:
        raise InvalidInput(
            f"{path}.queries_per_group", f"{shape.num_heads} heads are no multiple of it"
        )
    _check_input(shape, path)


def _check_input(shape: ModelShape, path: str) -> None:
    """Tokens of a vocabulary, or patches of images: one of both, and whole."""
    if not shape.reads_images:
        if shape.vocab_size < 1:
            raise InvalidInput(f"{path}.vocab_size", "must be at least 1 for a model of texts")
        return
    if shape.num_channels < 1 or shape.image_size < 1 or shape.image_size % shape.patch_size:
        raise InvalidInput(
            f"{path}.patch_size", f"{shape.patch_size} does not divide {shape.image_size} pixels"
        )
    num_tokens = shape.num_patches + shape.num_prefix_tokens
    if shape.num_prefix_tokens < 1 or shape.max_seq_len != num_tokens:
        raise InvalidInput(
            f"{path}.max_seq_len", f"an image is {num_tokens} tokens, not {shape.max_seq_len}"
        )


def check_subnet(subnet: SubnetConfig, shape: ModelShape, path: str = "subnet") -> None:
    """Raises: InvalidInput where `subnet` is larger than `shape`, or empty, or its layers differ
    where they share their weights."""
    if not subnet.layers:
        raise InvalidInput(f"{path}.layers", "at least one layer must be kept")
    for i, layer in enumerate(subnet.layers):
        _check_within(layer, 0, shape.num_layers - 1, f"{path}.layers[{i}]")
    for i, num_heads in enumerate(subnet.num_heads):
        _check_within(num_heads, 1, shape.num_heads, f"{path}.num_heads[{i}]")
        if num_heads % shape.queries_per_group:
            raise InvalidInput(
                f"{path}.num_heads[{i}]",
                f"must be a multiple of {shape.queries_per_group}, which share a key-value head",
            )
    for i, ffn_dim in enumerate(subnet.ffn_dim):
        _check_within(ffn_dim, 1, shape.ffn_dim, f"{path}.ffn_dim[{i}]")
    if subnet.embed_dim is not None:
        _check_within(subnet.embed_dim, 1, shape.embed_dim, f"{path}.embed_dim")
    own_layer_sizes(shape, subnet)


def _check_within(value: int, low: int, high: int, path: str) -> None:
    if not low <= value <= high:
        raise InvalidInput(path, f"the model has {low} to {high}, not {value}")
