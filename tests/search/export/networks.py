"""Networks of every family that a search may end with, and the folders of some."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from search.model.extract import extract
from search.model.transformer import Batch, ElasticTransformer
from search.shape import ModelShape
from search.space import SubnetConfig
from tests.search.families import SHAPES, batch_of, network_of

TEXT_ENCODERS = ("bert", "distilbert", "roberta")
TASKS = {
    "tags": "token-classification",
    "pairs": "pair-classification",
    "vectors": "sentence-embedding",
}
ALL: dict[str, ModelShape] = {
    **SHAPES,
    **{
        f"{name}/{short}": replace(
            SHAPES[name], task=task, num_labels=0 if short == "vectors" else 3
        )
        for name in TEXT_ENCODERS
        for short, task in TASKS.items()
    },
}
SUBNETS = {
    "whole": SubnetConfig(layers=(0, 1, 2), num_heads=(4,) * 3, ffn_dim=(64,) * 3),
    "uniform": SubnetConfig(layers=(0, 2), num_heads=(4, 4), ffn_dim=(32, 32)),
    "narrow": SubnetConfig(layers=(0, 2), num_heads=(2, 2), ffn_dim=(32, 32), embed_dim=16),
    "few heads": SubnetConfig(layers=(0, 2), num_heads=(2, 2), ffn_dim=(32, 32)),
    "uneven": SubnetConfig(layers=(0, 2), num_heads=(2, 4), ffn_dim=(32, 16)),
    "uneven and narrow": SubnetConfig(
        layers=(0, 1, 2), num_heads=(2, 4, 2), ffn_dim=(32, 16, 64), embed_dim=20
    ),
}


def subnet_of(name: str, kind: str) -> ElasticTransformer:
    """A network by itself, in evaluation mode."""
    return extract(network_of(ALL[name]), SUBNETS[kind]).eval()


def rows_of(shape: ModelShape) -> Batch:
    batch = batch_of(shape)
    if shape.reads_images:
        return batch
    if shape.has_token_type_input:
        types = (torch.arange(batch.inputs.shape[1]) > 3).long().expand_as(batch.inputs)
        batch = batch._replace(token_types=types)
    # RoBERTa takes token 1 for padding wherever it stands.
    return batch._replace(inputs=torch.where(batch.inputs < 2, 2, batch.inputs))


def with_tokenizer(folder: Path, shape: ModelShape) -> Path:
    """What a folder of a text model needs beside its weights."""
    if not shape.reads_images:
        vocab = {f"t{i}": i for i in range(shape.vocab_size)}
        tokenizer = {"model": {"type": "WordPiece", "vocab": vocab}}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder
