"""ViT (arXiv 2010.11929) and DeiT (arXiv 2012.12877), which has one more learned token."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from search.errors import InvalidInput
from search.families.config import CONFIG_FILE, Config, activation_name
from search.families.family import Family, Part, StoredTensor, linear, norm, same, token_head
from search.shape import ModelShape

# What stands before the patches, in this order.
PREFIXES = {"vit": ("cls_token",), "deit": ("cls_token", "distillation_token")}


def read_shape(config: Config, task: str, *, family: str) -> ModelShape:
    embed_dim, num_heads = config.size("hidden_size"), config.size("num_attention_heads")
    image_size, patch_size = config.size("image_size"), config.size("patch_size")
    if image_size % patch_size:
        raise InvalidInput(
            CONFIG_FILE, f"image_size {image_size} must be a multiple of patch_size {patch_size}"
        )
    num_prefix_tokens = len(PREFIXES[family])
    return ModelShape(
        family=family,
        task=task,
        num_layers=config.size("num_hidden_layers", largest=1000),
        embed_dim=embed_dim,
        num_heads=num_heads,
        head_dim=config.head_dim(embed_dim, "hidden_size", num_heads, "num_attention_heads"),
        ffn_dim=config.size("intermediate_size"),
        vocab_size=0,
        max_seq_len=(image_size // patch_size) ** 2 + num_prefix_tokens,
        num_token_types=0,
        num_labels=0,
        norm_eps=config.number("layer_norm_eps", 1e-12, 0, 1),
        norm_first=True,
        activation=config.activation("hidden_act", "gelu"),
        has_qkv_bias=config.flag("qkv_bias", True),
        image_size=image_size,
        patch_size=patch_size,
        num_channels=config.size("num_channels", default=3, largest=64),
        num_prefix_tokens=num_prefix_tokens,
    )


def write_config(shape: ModelShape) -> dict[str, Any]:
    class_name = {"vit": "ViT", "deit": "DeiT"}[shape.family]
    return {
        "model_type": shape.family,
        "architectures": [f"{class_name}ForImageClassification"],
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.embed_dim,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.ffn_dim,
        "image_size": shape.image_size,
        "patch_size": shape.patch_size,
        "num_channels": shape.num_channels,
        "layer_norm_eps": shape.norm_eps,
        "hidden_act": activation_name(shape.activation),
        "qkv_bias": shape.has_qkv_bias,
    }


def body(shape: ModelShape) -> Iterator[StoredTensor]:
    dim, ffn, size = shape.embed_dim, shape.ffn_dim, shape.patch_size
    inner = shape.attention_dim
    for row, name in enumerate(PREFIXES[shape.family]):
        part = Part("embeddings.prefix", _flat_row, row)
        yield StoredTensor(f"embeddings.{name}", (1, 1, dim), (part,))
    yield StoredTensor(
        "embeddings.position_embeddings",
        (1, shape.max_seq_len, dim),
        (Part("embeddings.position.weight", _first),),
    )
    patch = "embeddings.patch_embeddings.projection"
    yield StoredTensor(
        f"{patch}.weight",
        (dim, shape.num_channels, size, size),
        (Part("embeddings.patch.weight", _flat_kernel),),
    )
    yield same(f"{patch}.bias", "embeddings.patch.bias", dim)
    for i in range(shape.num_layers):
        theirs, ours = f"encoder.layer.{i}", f"layers.{i}"
        yield from norm(f"{theirs}.layernorm_before", f"{ours}.attn.norm", shape)
        for name, own in (("query", "q"), ("key", "k"), ("value", "v")):
            yield from linear(
                f"{theirs}.attention.attention.{name}",
                f"{ours}.attn.{own}",
                inner,
                dim,
                has_bias=shape.has_qkv_bias,
            )
        yield from linear(f"{theirs}.attention.output.dense", f"{ours}.attn.out", dim, inner)
        yield from norm(f"{theirs}.layernorm_after", f"{ours}.ffn.norm", shape)
        yield from linear(f"{theirs}.intermediate.dense", f"{ours}.ffn.up", ffn, dim)
        yield from linear(f"{theirs}.output.dense", f"{ours}.ffn.down", dim, ffn)
    yield from norm("layernorm", "norm", shape)


def _first(tensor: Any) -> Any:
    return tensor[0]


def _flat_row(tensor: Any) -> Any:
    return tensor.reshape(-1)


def _flat_kernel(tensor: Any) -> Any:
    """A convolution whose stride is its size is a matrix over each patch, channel by channel."""
    return tensor.reshape(tensor.shape[0], -1)


def _family(name: str) -> Family:
    return Family(
        name=name,
        model_types=(name,),
        tasks=("image-classification",),
        phases=("encode",),
        prefixes=("", f"{name}."),
        read_shape=partial(read_shape, family=name),
        body=body,
        head=token_head,
        write_config=write_config,
        states_head_dim=True,
    )


VIT, DEIT = _family("vit"), _family("deit")
