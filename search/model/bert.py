"""Import of BERT weights from a plain folder: safetensors and config.json, nothing executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open

from search.errors import InvalidInput
from search.model.transformer import ElasticTransformer
from search.shape import ModelShape

EMBEDDING_NAMES = {
    "embeddings.word_embeddings.weight": "embeddings.word.weight",
    "embeddings.position_embeddings.weight": "embeddings.position.weight",
    "embeddings.token_type_embeddings.weight": "embeddings.token_type.weight",
    "embeddings.LayerNorm.weight": "embeddings.norm.weight",
    "embeddings.LayerNorm.bias": "embeddings.norm.bias",
}
LAYER_NAMES = {
    "attention.self.query": "attn.q",
    "attention.self.key": "attn.k",
    "attention.self.value": "attn.v",
    "attention.output.dense": "attn.out",
    "attention.output.LayerNorm": "attn.norm",
    "intermediate.dense": "ffn.up",
    "output.dense": "ffn.down",
    "output.LayerNorm": "ffn.norm",
}


def weight_names(shape: ModelShape) -> Iterator[tuple[str, str]]:
    """Pairs of BERT's own name and ours, for every tensor of the encoder."""
    yield from EMBEDDING_NAMES.items()
    for layer in range(shape.num_layers):
        for theirs, ours in LAYER_NAMES.items():
            for kind in ("weight", "bias"):
                yield f"encoder.layer.{layer}.{theirs}.{kind}", f"layers.{layer}.{ours}.{kind}"


def import_bert(path: Path, shape: ModelShape, seed: int) -> ElasticTransformer:
    """The encoder of `path`/model.safetensors with a fresh head; the pooler is not used.

    Raises:
        InvalidInput: a tensor is missing or its shape disagrees with `shape`.
    """
    torch.manual_seed(seed)
    model = ElasticTransformer(shape)
    target = dict(model.named_parameters())
    with safe_open(path / "model.safetensors", framework="pt") as stored, torch.no_grad():
        names = set(stored.keys())
        prefix = "bert." if "bert.embeddings.word_embeddings.weight" in names else ""
        for theirs, ours in weight_names(shape):
            if prefix + theirs not in names:
                raise InvalidInput("model.safetensors", f"tensor {prefix + theirs} is missing")
            tensor = stored.get_tensor(prefix + theirs)
            if tensor.shape != target[ours].shape:
                raise InvalidInput(
                    "model.safetensors",
                    f"tensor {prefix + theirs} has shape {tuple(tensor.shape)}, "
                    f"config.json asks for {tuple(target[ours].shape)}",
                )
            target[ours].copy_(tensor)
    return model
