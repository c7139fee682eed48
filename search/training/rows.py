"""Rows that a model learns from or is judged by: what training asks of texts and images alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Protocol, Self

from torch import Tensor

from search.model.transformer import Batch


class Rows(Protocol):
    """One split of a data set, in memory, as the model reads it."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> Tensor:
        """Tokens of each row, those of an image's patches and prefix included: (rows,), int64."""

    def batch(self, places: Sequence[int]) -> Batch:
        """The rows at `places`, padded to the longest among them."""

    def labels_of(self, places: Sequence[int]) -> Tensor:
        """What is to be answered for the rows at `places`.

        (batch,) int64 for one label a row; (batch, seq) int64, padded like `batch` with
        `tasks.IGNORED`, for one a token; (batch, features) float32 for vectors.
        """

    def select(self, places: Sequence[int]) -> Self:
        """The rows at `places`, in that order."""

    def spread(self, count: int) -> Self:
        """At most `count` rows, evenly spaced: data often come sorted."""

    def save(self, path: Path) -> None:
        """A safetensors file."""


def places_of_new(rows: Rows, others: Iterable[Rows]) -> list[int]:
    """Numbers of those of `rows` that a model reads in none of the `others`, labels aside."""
    known = {_content(other, place) for other in others for place in range(len(other))}
    return [place for place in range(len(rows)) if _content(rows, place) not in known]


def _content(rows: Rows, place: int) -> bytes:
    batch = rows.batch([place])
    return blake2b(batch.inputs.numpy().tobytes(), digest_size=16).digest()


def spread_places(size: int, count: int) -> list[int]:
    """Numbers of at most `count` of `size` rows, evenly spaced."""
    return list(range(size)) if count >= size else [i * size // count for i in range(count)]
