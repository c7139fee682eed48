"""DistilBERT (arXiv 1910.01108): BERT's layers under other names, without token types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from search.families.bert import TASKS
from search.families.config import Config, activation_name
from search.families.family import Family, StoredTensor, linear, norm, same, token_head
from search.shape import ModelShape


def read_shape(config: Config, task: str) -> ModelShape:
    embed_dim, num_heads = config.size("dim"), config.size("n_heads")
    return ModelShape(
        family="distilbert",
        task=task,
        num_layers=config.size("n_layers", largest=1000),
        embed_dim=embed_dim,
        num_heads=num_heads,
        head_dim=config.head_dim(embed_dim, "dim", num_heads, "n_heads"),
        ffn_dim=config.size("hidden_dim"),
        vocab_size=config.size("vocab_size"),
        max_seq_len=config.size("max_position_embeddings"),
        num_token_types=0,
        num_labels=0,
        activation=config.activation("activation", "gelu"),
    )


def write_config(shape: ModelShape) -> dict[str, Any]:
    is_tagger = shape.task == "token-classification"
    return {
        "model_type": "distilbert",
        "architectures": ["DistilBertForTokenClassification" if is_tagger else "DistilBertModel"],
        "n_layers": shape.num_layers,
        "dim": shape.embed_dim,
        "n_heads": shape.num_heads,
        "hidden_dim": shape.ffn_dim,
        "max_position_embeddings": shape.max_seq_len,
        "vocab_size": shape.vocab_size,
        "activation": activation_name(shape.activation),
    }


def body(shape: ModelShape) -> Iterator[StoredTensor]:
    dim, inner, ffn = shape.embed_dim, shape.attention_dim, shape.ffn_dim
    table = "embeddings.word_embeddings.weight"
    yield same(table, "embeddings.word.weight", shape.vocab_size, dim)
    positions = "embeddings.position_embeddings.weight"
    yield same(positions, "embeddings.position.weight", shape.max_seq_len, dim)
    yield from norm("embeddings.LayerNorm", "embeddings.norm", shape)
    for i in range(shape.num_layers):
        theirs, ours = f"transformer.layer.{i}", f"layers.{i}"
        for part in ("q", "k", "v"):
            yield from linear(f"{theirs}.attention.{part}_lin", f"{ours}.attn.{part}", inner, dim)
        yield from linear(f"{theirs}.attention.out_lin", f"{ours}.attn.out", dim, inner)
        yield from norm(f"{theirs}.sa_layer_norm", f"{ours}.attn.norm", shape)
        yield from linear(f"{theirs}.ffn.lin1", f"{ours}.ffn.up", ffn, dim)
        yield from linear(f"{theirs}.ffn.lin2", f"{ours}.ffn.down", dim, ffn)
        yield from norm(f"{theirs}.output_layer_norm", f"{ours}.ffn.norm", shape)


DISTILBERT = Family(
    name="distilbert",
    model_types=("distilbert",),
    tasks=TASKS,
    phases=("encode",),
    prefixes=("", "distilbert."),
    read_shape=read_shape,
    body=body,
    head=token_head,
    write_config=write_config,
)
