"""A network layer by layer, and where its latency goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.shape import ModelShape
from search.space import SubnetConfig
from service.reports.schema import Architecture, Layer

PART_WORDS = {
    "overhead": "overhead",
    "embeddings_and_head": "embeddings, head",
    "norms_and_residuals": "norms",
    "projections": "projections",
    "attention": "attention",
    "ffn": "feed-forward",
}


def architecture_of(
    subnet: SubnetConfig, shape: ModelShape, vocab_size: int | None = None
) -> Architecture:
    """Args:
    vocab_size: words that are left, where some were dropped.
    """
    kept = {
        layer: (heads, ffn)
        for layer, heads, ffn in zip(subnet.layers, subnet.num_heads, subnet.ffn_dim, strict=True)
    }
    highest = max([shape.num_layers - 1, *subnet.layers])
    return Architecture(
        layers=[_layer(subnet, index, kept) for index in range(highest + 1)],
        full_heads=shape.num_heads,
        full_ffn_dim=shape.ffn_dim,
        embed_dim=subnet.width_in(shape),
        full_embed_dim=shape.embed_dim,
        vocab_size=shape.vocab_size if vocab_size is None else vocab_size,
        full_vocab_size=shape.vocab_size,
    )


def _layer(subnet: SubnetConfig, index: int, kept: Mapping[int, tuple[int, int]]) -> Layer:
    if index not in kept:
        return Layer(index=index, is_kept=False)
    heads, ffn = kept[index]
    return Layer(
        index=index,
        is_kept=True,
        num_heads=heads,
        ffn_dim=ffn,
        precision=subnet.precision_of(index),
    )


def read_subnet(data: Mapping[str, Any] | None) -> SubnetConfig | None:
    return None if data is None else SubnetConfig.from_dict(data)
