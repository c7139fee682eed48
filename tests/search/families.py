"""A tiny shape of every family, and a network of each with weights that matter."""

from __future__ import annotations

from dataclasses import replace

import torch

from search.model.transformer import Batch, ElasticTransformer
from search.shape import ModelShape

_SIZES = {"num_layers": 3, "embed_dim": 32, "num_heads": 4, "head_dim": 8, "ffn_dim": 64}
_TEXT = {**_SIZES, "vocab_size": 64, "max_seq_len": 24, "num_labels": 3}
_LLAMA = {
    **_TEXT,
    "num_token_types": 0,
    "num_labels": 64,
    "task": "language-modelling",
    "is_causal": True,
    "norm_first": True,
    "norm": "rms",
    "norm_eps": 1e-6,
    "positions": "rotary",
    "activation": "silu",
    "is_gated": True,
    "has_qkv_bias": False,
    "has_out_bias": False,
    "has_ffn_bias": False,
    "queries_per_group": 2,
}
_IMAGE = {
    **_SIZES,
    "vocab_size": 0,
    "num_token_types": 0,
    "num_labels": 3,
    "task": "image-classification",
    "norm_first": True,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
}
SHAPES: dict[str, ModelShape] = {
    name: ModelShape(family=name, **sizes)  # type: ignore[arg-type]
    for name, sizes in {
        "bert": {**_TEXT, "num_token_types": 2},
        "distilbert": {**_TEXT, "num_token_types": 0},
        "roberta": {**_TEXT, "num_token_types": 1, "norm_eps": 1e-5},
        "gpt2": {
            **_TEXT,
            "num_token_types": 0,
            "num_labels": 64,
            "task": "language-modelling",
            "is_causal": True,
            "norm_first": True,
            "norm_eps": 1e-5,
            "activation": "gelu_tanh",
            "has_tied_head": True,
        },
        "llama": {**_LLAMA},
        "qwen2": {**_LLAMA, "has_qkv_bias": True, "has_tied_head": True},
        "qwen3": {**_LLAMA, "has_qk_norm": True, "head_dim": 12},
        "vit": {**_IMAGE, "num_prefix_tokens": 1, "max_seq_len": 5},
        "deit": {**_IMAGE, "num_prefix_tokens": 2, "max_seq_len": 6},
    }.items()
}
# What compression makes of them.
LOW_RANK = {n: replace(SHAPES[n], ffn_rank=8) for n in ("bert", "distilbert", "gpt2", "llama")}
SHARED = {n: replace(SHAPES[n], layers_per_group=2) for n in ("bert", "distilbert", "vit")}
LINEAR = {n: replace(SHAPES[n], attention="linear") for n in ("bert", "distilbert", "vit")}
ALL_AT_ONCE = {
    n: replace(SHAPES[n], ffn_rank=8, layers_per_group=3, attention="linear")
    for n in ("bert", "roberta", "deit")
}
RARE: dict[str, ModelShape] = {
    f"{kind} {name}": shape
    for kind, shapes in {
        "low-rank": LOW_RANK,
        "shared": SHARED,
        "linear": LINEAR,
        "light": ALL_AT_ONCE,
    }.items()
    for name, shape in shapes.items()
}


def network_of(shape: ModelShape, seed: int = 0) -> ElasticTransformer:
    """With larger weights than training starts from, so that every unit matters."""
    torch.manual_seed(seed)
    model = ElasticTransformer(shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(std=0.25)
    return model.eval()


def batch_of(shape: ModelShape, rows: int = 4, seed: int = 0) -> Batch:
    """Rows of different lengths, padded on the right; or images."""
    generator = torch.Generator().manual_seed(seed)
    if shape.reads_images:
        size = (rows, shape.num_channels, shape.image_size, shape.image_size)
        mask = torch.ones(rows, shape.max_seq_len, dtype=torch.int64)
        return Batch(torch.randn(size, generator=generator), mask)
    longest = 10
    ids = torch.randint(1, shape.vocab_size, (rows, longest), generator=generator)
    lengths = torch.randint(3, longest + 1, (rows, 1), generator=generator)
    mask = (torch.arange(longest) < lengths).long()
    return Batch(ids * mask, mask)
