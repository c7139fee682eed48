"""Rows of tokens, and batches of them in an order that a seed fixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from search.model.transformer import Batch
from search.training.rows import Rows, spread_places
from search.training.tasks import IGNORED

# Batches are cut from runs of this many that were sorted by length: little padding, and still
# another composition in every epoch.
BUCKET_BATCHES = 32


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Tokenized, truncated texts: row i is `tokens[offsets[i]:offsets[i + 1]]`.

    Attributes:
        labels: (rows,) int64, one a row; (num_tokens,) int64 where `has_token_labels`; or (rows,
            features) float32, vectors.
        token_types: which of two texts a token is of; None: all are of type 0.
    """

    tokens: Tensor  # (num_tokens,) int32
    offsets: Tensor  # (rows + 1,) int64
    labels: Tensor
    token_types: Tensor | None = None  # (num_tokens,) int8
    has_token_labels: bool = False

    @classmethod
    def load(cls, path: Path) -> Self:
        stored = load_file(path)
        has_token_labels = "token_labels" in stored
        labels = stored["token_labels" if has_token_labels else "labels"]
        return cls(
            stored["tokens"],
            stored["offsets"],
            labels,
            stored.get("token_types"),
            has_token_labels,
        )

    def save(self, path: Path) -> None:
        labels = "token_labels" if self.has_token_labels else "labels"
        stored = {"tokens": self.tokens, "offsets": self.offsets, labels: self.labels}
        if self.token_types is not None:
            stored["token_types"] = self.token_types
        save_file(stored, path)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    def select(self, places: Sequence[int]) -> Self:
        def pick(values: Tensor) -> Tensor:
            return torch.cat([values[self._span(i)] for i in places])

        lengths = torch.cat([torch.zeros(1, dtype=torch.int64), self.lengths[list(places)]])
        types = self.token_types
        return type(self)(
            pick(self.tokens),
            lengths.cumsum(0),
            pick(self.labels) if self.has_token_labels else self.labels[list(places)],
            None if types is None else pick(types),
            self.has_token_labels,
        )

    def spread(self, count: int) -> Self:
        return self if count >= len(self) else self.select(spread_places(len(self), count))

    def batch(self, places: Sequence[int]) -> Batch:
        """Rows padded with token 0 to the longest among them."""
        ids, mask = self._padded(self.tokens, places, 0)
        if self.token_types is None:
            return Batch(ids, mask)
        return Batch(ids, mask, self._padded(self.token_types, places, 0)[0])

    def labels_of(self, places: Sequence[int]) -> Tensor:
        if self.has_token_labels:
            return self._padded(self.labels, places, IGNORED)[0]
        return self.labels[list(places)]

    def _span(self, place: int) -> slice:
        return slice(int(self.offsets[place]), int(self.offsets[place + 1]))

    def _padded(
        self, values: Tensor, places: Sequence[int], padding: int
    ) -> tuple[Tensor, Tensor]:
        """Each row's values, (rows, longest) int64, and which of them are no padding."""
        longest = max(int(self.offsets[i + 1] - self.offsets[i]) for i in places)
        padded = torch.full((len(places), longest), padding, dtype=torch.int64)
        mask = torch.zeros_like(padded)
        for row, place in enumerate(places):
            values_of_row = values[self._span(place)]
            padded[row, : len(values_of_row)] = values_of_row
            mask[row, : len(values_of_row)] = 1
        return padded, mask


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


def ordered_batches(rows: Rows, batch_size: int = 64) -> Iterator[tuple[list[int], Batch]]:
    """Every row once, longest last, for evaluation."""
    order = sorted(range(len(rows)), key=lambda i: int(rows.lengths[i]))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        yield part, rows.batch(part)
