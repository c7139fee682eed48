"""A network and a task small enough for a test of a second."""

from __future__ import annotations

import random

import torch

from search.model.transformer import Batch, ElasticTransformer
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig
from search.training.batches import TokenRows

SHAPE = ModelShape(
    family="bert",
    num_layers=3,
    embed_dim=32,
    num_heads=4,
    head_dim=8,
    ffn_dim=64,
    vocab_size=60,
    max_seq_len=24,
    num_token_types=2,
    num_labels=2,
)
SPACE = SearchSpace.for_shape(SHAPE)
MIXED = SubnetConfig(layers=(0, 2), num_heads=(3, 1), ffn_dim=(48, 16))


def network(seed: int = 0, *, weight_bits: int = 8) -> ElasticTransformer:
    """With larger weights than training starts from, so that every unit matters."""
    torch.manual_seed(seed)
    model = ElasticTransformer(SHAPE, weight_bits=weight_bits)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("norm.weight"):
                parameter.normal_(std=0.3)
    return model.eval()


def batch(seed: int = 0, rows: int = 5, longest: int = 12) -> Batch:
    """Rows of different lengths, padded."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, SHAPE.vocab_size, (rows, longest), generator=generator)
    lengths = torch.randint(3, longest + 1, (rows, 1), generator=generator)
    mask = (torch.arange(longest) < lengths).long()
    return Batch(ids * mask, mask)


def task(num_rows: int = 96, seed: int = 0) -> TokenRows:
    """The label says whether token 1 or token 2 is in the row."""
    rng = random.Random(seed)
    rows, labels = [], []
    for i in range(num_rows):
        row = [rng.randrange(3, SHAPE.vocab_size) for _ in range(rng.randint(3, 11))]
        row.insert(rng.randrange(len(row)), 1 + i % 2)
        rows.append(row)
        labels.append(i % 2)
    lengths = torch.tensor([0, *map(len, rows)])
    tokens = torch.tensor([token for row in rows for token in row], dtype=torch.int32)
    return TokenRows(tokens, lengths.cumsum(0), torch.tensor(labels))
