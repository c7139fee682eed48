"""BERT (arXiv 1810.04805) and RoBERTa (arXiv 1907.11692): the same layers, other positions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from search.families.config import Config, activation_name
from search.families.family import Family, Part, StoredTensor, linear, norm, same, token_head
from search.shape import ModelShape

TASKS = (
    "text-classification",
    "pair-classification",
    "token-classification",
    "sentence-embedding",
)
# RoBERTa's positions count from the padding token's id + 1; the rows before are never used.
ROBERTA_UNUSED_POSITIONS = 2


def read_shape(config: Config, task: str, *, unused_positions: int = 0) -> ModelShape:
    config.expect(position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    if unused_positions:
        config.expect(pad_token_id=unused_positions - 1)
    embed_dim, num_heads = config.size("hidden_size"), config.size("num_attention_heads")
    num_token_types = config.size("type_vocab_size", default=2)
    return ModelShape(
        family="roberta" if unused_positions else "bert",
        task=task,
        num_layers=config.size("num_hidden_layers", largest=1000),
        embed_dim=embed_dim,
        num_heads=num_heads,
        head_dim=config.head_dim(embed_dim, "hidden_size", num_heads, "num_attention_heads"),
        ffn_dim=config.size("intermediate_size"),
        vocab_size=config.size("vocab_size"),
        max_seq_len=max(1, config.size("max_position_embeddings") - unused_positions),
        num_token_types=num_token_types,
        num_labels=0,
        norm_eps=config.number("layer_norm_eps", 1e-12, 0, 1),
        activation=config.activation("hidden_act", "gelu"),
    )


def write_config(shape: ModelShape, *, unused_positions: int = 0) -> dict[str, Any]:
    class_name = "Roberta" if unused_positions else "Bert"
    kind = "ForTokenClassification" if shape.task == "token-classification" else "Model"
    config: dict[str, Any] = {
        "model_type": shape.family,
        "architectures": [class_name + kind],
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.embed_dim,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.ffn_dim,
        "max_position_embeddings": shape.max_seq_len + unused_positions,
        "type_vocab_size": shape.num_token_types,
        "vocab_size": shape.vocab_size,
        "layer_norm_eps": shape.norm_eps,
        "hidden_act": activation_name(shape.activation),
    }
    return config | {"pad_token_id": unused_positions - 1} if unused_positions else config


def body(shape: ModelShape, *, unused_positions: int = 0) -> Iterator[StoredTensor]:
    dim, start = shape.embed_dim, unused_positions
    table = "embeddings.word_embeddings.weight"
    yield same(table, "embeddings.word.weight", shape.vocab_size, dim)
    yield StoredTensor(
        "embeddings.position_embeddings.weight",
        (shape.max_seq_len + start, dim),
        (Part("embeddings.position.weight", lambda table: table[start:]),),
    )
    types = "embeddings.token_type_embeddings.weight"
    yield same(types, "embeddings.token_type.weight", shape.num_token_types, dim)
    yield from norm("embeddings.LayerNorm", "embeddings.norm", shape)
    for i in range(shape.num_layers):
        yield from layer(f"encoder.layer.{i}", f"layers.{i}", shape)


def layer(theirs: str, ours: str, shape: ModelShape) -> Iterator[StoredTensor]:
    dim, inner, ffn = shape.embed_dim, shape.attention_dim, shape.ffn_dim
    for name, part in (("query", "q"), ("key", "k"), ("value", "v")):
        yield from linear(f"{theirs}.attention.self.{name}", f"{ours}.attn.{part}", inner, dim)
    yield from linear(f"{theirs}.attention.output.dense", f"{ours}.attn.out", dim, inner)
    yield from norm(f"{theirs}.attention.output.LayerNorm", f"{ours}.attn.norm", shape)
    yield from linear(f"{theirs}.intermediate.dense", f"{ours}.ffn.up", ffn, dim)
    yield from linear(f"{theirs}.output.dense", f"{ours}.ffn.down", dim, ffn)
    yield from norm(f"{theirs}.output.LayerNorm", f"{ours}.ffn.norm", shape)


BERT = Family(
    name="bert",
    model_types=("bert",),
    tasks=TASKS,
    phases=("encode",),
    prefixes=("", "bert."),
    read_shape=read_shape,
    body=body,
    head=token_head,
    write_config=write_config,
)
ROBERTA = Family(
    name="roberta",
    model_types=("roberta", "xlm-roberta", "camembert"),
    tasks=TASKS,
    phases=("encode",),
    prefixes=("", "roberta."),
    read_shape=partial(read_shape, unused_positions=ROBERTA_UNUSED_POSITIONS),
    body=partial(body, unused_positions=ROBERTA_UNUSED_POSITIONS),
    head=token_head,
    write_config=partial(write_config, unused_positions=ROBERTA_UNUSED_POSITIONS),
)
