"""Rows of tokens, and batches of them in an order that a seed fixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from search.model.transformer import Batch

# Batches are cut from runs of this many that were sorted by length: little padding, and still
# another composition in every epoch.
BUCKET_BATCHES = 32


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Tokenized, truncated texts: row i is `tokens[offsets[i]:offsets[i + 1]]`."""

    tokens: Tensor  # (num_tokens,) int32
    offsets: Tensor  # (rows + 1,) int64
    labels: Tensor  # (rows,) int64

    @classmethod
    def from_texts(
        cls, texts: Sequence[str], labels: Sequence[int], tokenizer_path: Path, max_seq_len: int
    ) -> Self:
        tokenizer = Tokenizer.from_file(str(tokenizer_path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_seq_len)
        ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
        lengths = torch.tensor([0, *map(len, ids)])
        flat = torch.tensor([token for row in ids for token in row], dtype=torch.int32)
        return cls(flat, lengths.cumsum(0), torch.tensor(labels))

    @classmethod
    def load(cls, path: Path) -> Self:
        stored = load_file(path)
        return cls(stored["tokens"], stored["offsets"], stored["labels"])

    def save(self, path: Path) -> None:
        save_file({"tokens": self.tokens, "offsets": self.offsets, "labels": self.labels}, path)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    def select(self, rows: Sequence[int]) -> TokenRows:
        parts = [self.tokens[self.offsets[i] : self.offsets[i + 1]] for i in rows]
        lengths = torch.tensor([0, *(len(part) for part in parts)])
        return TokenRows(torch.cat(parts), lengths.cumsum(0), self.labels[list(rows)])

    def spread(self, count: int) -> TokenRows:
        """At most `count` rows, evenly spaced: data often come sorted."""
        size = len(self)
        return self if count >= size else self.select([i * size // count for i in range(count)])

    def batch(self, rows: Sequence[int]) -> Batch:
        """Rows padded with token 0 to the longest among them."""
        longest = max(int(self.offsets[i + 1] - self.offsets[i]) for i in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for place, i in enumerate(rows):
            row = self.tokens[self.offsets[i] : self.offsets[i + 1]]
            ids[place, : len(row)] = row
            mask[place, : len(row)] = 1
        return Batch(ids, mask)


def epoch_order(lengths: Tensor, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Row numbers of each batch of an epoch, rows of similar length together."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    span = batch_size * BUCKET_BATCHES
    batches = []
    for start in range(0, len(order), span):
        run = sorted(order[start : start + span], key=lambda i: int(lengths[i]))
        batches += [run[i : i + batch_size] for i in range(0, len(run), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def ordered_batches(rows: TokenRows, batch_size: int = 64) -> Iterator[tuple[list[int], Batch]]:
    """Every row once, longest last, for evaluation."""
    order = sorted(range(len(rows)), key=lambda i: int(rows.lengths[i]))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        yield part, rows.batch(part)
