"""Llama (arXiv 2302.13971, SmolLM too), Qwen2 (arXiv 2407.10671) and Qwen3 (arXiv 2505.09388).

RMSNorm first, rotary positions, grouped-query attention, SwiGLU; they differ in biases and in
Qwen3's norms of queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from search.errors import InvalidInput
from search.families.config import CONFIG_FILE, Config, activation_name
from search.families.family import Family, StoredTensor, linear, norm, same, vocabulary_head
from search.shape import ModelShape

PROJECTIONS = ("q", "k", "v")


def read_shape(config: Config, task: str, *, family: str) -> ModelShape:
    config.expect(use_sliding_window=False)
    config.expect_every("layer_types", "full_attention")
    embed_dim, num_heads = config.size("hidden_size"), config.size("num_attention_heads")
    # Without it a Llama shares no heads; Qwen's default is a number that fits one model only.
    assumed = num_heads if family == "llama" else None
    num_kv_heads = config.size("num_key_value_heads", default=assumed)
    if num_heads % num_kv_heads:
        raise InvalidInput(
            CONFIG_FILE,
            f"num_attention_heads {num_heads} must be a multiple of num_key_value_heads "
            f"{num_kv_heads}",
        )
    vocab_size = config.size("vocab_size")
    has_bias = config.flag("attention_bias", False)
    return ModelShape(
        family=family,
        task=task,
        num_layers=config.size("num_hidden_layers", largest=1000),
        embed_dim=embed_dim,
        num_heads=num_heads,
        head_dim=_head_dim(config, embed_dim, num_heads, family),
        ffn_dim=config.size("intermediate_size"),
        vocab_size=vocab_size,
        max_seq_len=config.size("max_position_embeddings"),
        num_token_types=0,
        num_labels=vocab_size,
        norm_eps=config.number("rms_norm_eps", 1e-6, 0, 1),
        queries_per_group=num_heads // num_kv_heads,
        is_causal=True,
        norm_first=True,
        norm="rms",
        positions="rotary",
        rope_theta=config.rope_theta(),
        activation=config.activation("hidden_act", "silu"),
        is_gated=True,
        has_qkv_bias=family == "qwen2" or has_bias,
        has_out_bias=family != "qwen2" and has_bias,
        has_ffn_bias=family == "llama" and config.flag("mlp_bias", False),
        has_qk_norm=family == "qwen3",
        has_tied_head=config.flag("tie_word_embeddings", False),
    )


def _head_dim(config: Config, embed_dim: int, num_heads: int, family: str) -> int:
    """Stated, or the stream's width shared out; Qwen3's default is 128."""
    if family == "qwen3":
        head_dim = config.size("head_dim", default=128)
    else:
        shared = embed_dim // num_heads if embed_dim % num_heads == 0 else None
        head_dim = config.size("head_dim", default=shared)
    if head_dim % 2:
        raise InvalidInput(CONFIG_FILE, f"head_dim {head_dim} must be even for rotary positions")
    return head_dim


def write_config(shape: ModelShape) -> dict[str, Any]:
    class_name = shape.family.capitalize()
    config: dict[str, Any] = {
        "model_type": shape.family,
        "architectures": [f"{class_name}ForCausalLM"],
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.embed_dim,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.ffn_dim,
        "max_position_embeddings": shape.max_seq_len,
        "vocab_size": shape.vocab_size,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "hidden_act": activation_name(shape.activation),
        "tie_word_embeddings": shape.has_tied_head,
    }
    if shape.family == "qwen2":
        return config
    config["attention_bias"] = shape.has_qkv_bias
    return config if shape.family == "qwen3" else config | {"mlp_bias": shape.has_ffn_bias}


def body(shape: ModelShape) -> Iterator[StoredTensor]:
    dim, ffn = shape.embed_dim, shape.ffn_dim
    inner, kv = shape.attention_dim, shape.num_kv_heads * shape.head_dim
    yield same("embed_tokens.weight", "embeddings.word.weight", shape.vocab_size, dim)
    for i in range(shape.num_layers):
        theirs, ours = f"layers.{i}", f"layers.{i}"
        yield from norm(f"{theirs}.input_layernorm", f"{ours}.attn.norm", shape)
        for part, rows in zip(PROJECTIONS, (inner, kv, kv), strict=True):
            yield from linear(
                f"{theirs}.self_attn.{part}_proj",
                f"{ours}.attn.{part}",
                rows,
                dim,
                has_bias=shape.has_qkv_bias,
            )
        yield from linear(
            f"{theirs}.self_attn.o_proj",
            f"{ours}.attn.out",
            dim,
            inner,
            has_bias=shape.has_out_bias,
        )
        if shape.has_qk_norm:
            for part in ("q_norm", "k_norm"):
                weight = f"{part}.weight"
                yield same(f"{theirs}.self_attn.{weight}", f"{ours}.attn.{weight}", shape.head_dim)
        yield from norm(f"{theirs}.post_attention_layernorm", f"{ours}.ffn.norm", shape)
        for part, size in (("gate", (ffn, dim)), ("up", (ffn, dim)), ("down", (dim, ffn))):
            yield from linear(
                f"{theirs}.mlp.{part}_proj",
                f"{ours}.ffn.{part}",
                *size,
                has_bias=shape.has_ffn_bias,
            )
    yield from norm("norm", "norm", shape)


def _family(name: str) -> Family:
    return Family(
        name=name,
        model_types=(name,),
        tasks=("language-modelling",),
        phases=("prefill", "decode"),
        prefixes=("", "model."),
        read_shape=partial(read_shape, family=name),
        body=body,
        head=vocabulary_head,
        write_config=write_config,
        states_head_dim=True,
    )


LLAMA, QWEN2, QWEN3 = _family("llama"), _family("qwen2"), _family("qwen3")
