"""GPT-2: pre-norm, causal, learned positions; its matrices are stored (in, out)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from search.families.config import Config, activation_name
from search.families.family import (
    Family,
    Part,
    StoredTensor,
    norm,
    same,
    transposed,
    vocabulary_head,
)
from search.shape import ModelShape


def read_shape(config: Config, task: str) -> ModelShape:
    config.expect(
        scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False
    )
    embed_dim, num_heads = config.size("n_embd"), config.size("n_head")
    vocab_size = config.size("vocab_size")
    return ModelShape(
        family="gpt2",
        task=task,
        num_layers=config.size("n_layer", largest=1000),
        embed_dim=embed_dim,
        num_heads=num_heads,
        head_dim=config.head_dim(embed_dim, "n_embd", num_heads, "n_head"),
        ffn_dim=config.size("n_inner", default=4 * embed_dim),
        vocab_size=vocab_size,
        max_seq_len=config.size("n_positions"),
        num_token_types=0,
        num_labels=vocab_size,
        norm_eps=config.number("layer_norm_epsilon", 1e-5, 0, 1),
        is_causal=True,
        norm_first=True,
        activation=config.activation("activation_function", "gelu_new"),
        has_tied_head=config.flag("tie_word_embeddings", True),
    )


def write_config(shape: ModelShape) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": shape.num_layers,
        "n_embd": shape.embed_dim,
        "n_head": shape.num_heads,
        "n_inner": shape.ffn_dim,
        "n_positions": shape.max_seq_len,
        "vocab_size": shape.vocab_size,
        "layer_norm_epsilon": shape.norm_eps,
        "activation_function": activation_name(shape.activation),
        "tie_word_embeddings": shape.has_tied_head,
    }


def body(shape: ModelShape) -> Iterator[StoredTensor]:
    dim, inner, ffn = shape.embed_dim, shape.attention_dim, shape.ffn_dim
    yield same("wte.weight", "embeddings.word.weight", shape.vocab_size, dim)
    yield same("wpe.weight", "embeddings.position.weight", shape.max_seq_len, dim)
    for i in range(shape.num_layers):
        theirs, ours = f"h.{i}", f"layers.{i}"
        yield from norm(f"{theirs}.ln_1", f"{ours}.attn.norm", shape)
        yield from _fused(f"{theirs}.attn.c_attn", f"{ours}.attn", inner, dim)
        yield from _turned(f"{theirs}.attn.c_proj", f"{ours}.attn.out", dim, inner)
        yield from norm(f"{theirs}.ln_2", f"{ours}.ffn.norm", shape)
        yield from _turned(f"{theirs}.mlp.c_fc", f"{ours}.ffn.up", ffn, dim)
        yield from _turned(f"{theirs}.mlp.c_proj", f"{ours}.ffn.down", dim, ffn)
    yield from norm("ln_f", "norm", shape)


def _turned(theirs: str, ours: str, rows: int, columns: int) -> Iterator[StoredTensor]:
    yield StoredTensor(f"{theirs}.weight", (columns, rows), (Part(f"{ours}.weight", transposed),))
    yield same(f"{theirs}.bias", f"{ours}.bias", rows)


def _fused(theirs: str, ours: str, inner: int, dim: int) -> Iterator[StoredTensor]:
    """Queries, keys and values in one matrix, side by side."""
    names = ("q", "k", "v")
    yield StoredTensor(
        f"{theirs}.weight",
        (dim, 3 * inner),
        tuple(
            Part(f"{ours}.{name}.weight", partial(_columns, start=i * inner, size=inner))
            for i, name in enumerate(names)
        ),
    )
    yield StoredTensor(
        f"{theirs}.bias",
        (3 * inner,),
        tuple(
            Part(f"{ours}.{name}.bias", partial(_rows, start=i * inner, size=inner))
            for i, name in enumerate(names)
        ),
    )


def _columns(tensor: Any, start: int, size: int) -> Any:
    return tensor[:, start : start + size].T


def _rows(tensor: Any, start: int, size: int) -> Any:
    return tensor[start : start + size]


GPT2 = Family(
    name="gpt2",
    model_types=("gpt2",),
    tasks=("language-modelling",),
    phases=("prefill", "decode"),
    prefixes=("", "transformer."),
    read_shape=read_shape,
    body=body,
    head=vocabulary_head,
    write_config=write_config,
)
