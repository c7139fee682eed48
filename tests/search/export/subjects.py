"""Networks whose layers differ, and rows for each: what every format is tested with."""

from __future__ import annotations

import torch

from search.export.writers import Subject
from search.model.transformer import Batch
from search.shape import ModelShape
from search.training.batches import TokenRows
from search.training.image_rows import ImageRows
from search.training.rows import Rows
from tests.search.export.networks import ALL, rows_of, subnet_of

FAMILIES = ("bert", "gpt2", "vit")


def subject_of(name: str, precision: str = "fp32") -> Subject:
    """Of uneven layers in a narrow stream."""
    model = subnet_of(name, "uneven and narrow")
    model.sizes = model.sizes.with_precision(precision)
    shape = ALL[name]
    return Subject(
        model=model, calibration=data_of(shape, 64, seed=1), judged=data_of(shape, 48, seed=2)
    )


def data_of(shape: ModelShape, count: int, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    if shape.reads_images:
        size = (count, shape.num_channels, shape.image_size, shape.image_size)
        pixels = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, shape.num_labels, (count,), generator=generator)
        half = torch.full((shape.num_channels,), 0.5)
        return ImageRows(pixels, labels, half, half, shape.max_seq_len)
    lengths = torch.randint(3, 11, (count,), generator=generator)
    total = int(lengths.sum())
    tokens = torch.randint(2, shape.vocab_size, (total,), generator=generator).int()
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    types = (torch.arange(total) % 2).to(torch.int8) if shape.has_token_type_input else None
    return TokenRows(
        tokens, offsets, _labels(shape, count, tokens), types, shape.answers_per_token
    )


def no_rows() -> TokenRows:
    none = torch.zeros(0, dtype=torch.int32)
    return TokenRows(none, torch.zeros(1, dtype=torch.int64), none.long())


def _labels(shape: ModelShape, count: int, tokens: torch.Tensor) -> torch.Tensor:
    if not shape.has_head:
        return torch.ones(count, shape.embed_dim)
    if shape.answers_per_token:
        return tokens.long() % shape.num_labels
    return torch.arange(count) % shape.num_labels


def padded(shape: ModelShape) -> Batch:
    """Rows of several lengths in one call."""
    return rows_of(shape)
