"""What a family of models is: how its config and its tensors become ours. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from search.families.config import Config
from search.shape import ModelShape

Take = Callable[[Any], Any]
"""From a stored tensor to one of our weights, by what numpy's and torch's arrays share."""


def whole(tensor: Any) -> Any:
    return tensor


def transposed(tensor: Any) -> Any:
    return tensor.T


@dataclass(frozen=True, slots=True)
class Part:
    """One of our weights, or with `row` one row of it, and how it is taken from a tensor."""

    name: str
    take: Take = whole
    row: int | None = None


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a model's file: its name, without the prefix of a checkpoint, and its size."""

    name: str
    size: tuple[int, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A family of models, as Hugging Face's folders hold them.

    Attributes:
        model_types: that config.json may name.
        tasks: of `search.shape.TASKS`; the first one where nobody says which.
        phases: of a workload.
        prefixes: that a checkpoint may put before the names of the body's tensors.
        read_shape: the shape for a task; `num_labels` is set by the data afterwards.
        body: every tensor that the layers and embeddings need.
        head: tensors of a head that the file may hold; a fresh one is made where it does not, or
            where it has another number of labels.
        write_config: the inverse of `read_shape`, for a folder that a network is exported to; None
            where that is not offered.
        states_head_dim: whether the library's classes ask a config how wide a head is (those of
            ViT since transformers 5); where not, the heads share out the stream's width.
    """

    name: str
    model_types: tuple[str, ...]
    tasks: tuple[str, ...]
    phases: tuple[str, ...]
    prefixes: tuple[str, ...]
    read_shape: Callable[[Config, str], ModelShape]
    body: Callable[[ModelShape], Iterator[StoredTensor]]
    head: Callable[[ModelShape], Iterator[StoredTensor]]
    write_config: Callable[[ModelShape], dict[str, Any]] | None = None
    states_head_dim: bool = False

    @property
    def reads_images(self) -> bool:
        return "image-classification" in self.tasks


def same(theirs: str, ours: str, *size: int) -> StoredTensor:
    """A tensor that is one of our weights as it stands."""
    return StoredTensor(theirs, size, (Part(ours),))


def linear(
    theirs: str, ours: str, rows: int, columns: int, *, has_bias: bool = True
) -> Iterator[StoredTensor]:
    """A matrix (out, in), and its bias."""
    yield same(f"{theirs}.weight", f"{ours}.weight", rows, columns)
    if has_bias:
        yield same(f"{theirs}.bias", f"{ours}.bias", rows)


def norm(theirs: str, ours: str, shape: ModelShape) -> Iterator[StoredTensor]:
    yield same(f"{theirs}.weight", f"{ours}.weight", shape.embed_dim)
    if shape.norm == "layer":
        yield same(f"{theirs}.bias", f"{ours}.bias", shape.embed_dim)


def no_head(shape: ModelShape) -> Iterator[StoredTensor]:
    """For families whose heads are made afresh for the data."""
    del shape
    yield from ()


def token_head(shape: ModelShape) -> Iterator[StoredTensor]:
    """A classifier of every token, or of an image's first one; those of whole texts differ in
    what they pool, so theirs are made afresh."""
    if shape.task in ("token-classification", "image-classification"):
        yield from linear("classifier", "head", shape.num_labels, shape.embed_dim)


def vocabulary_head(shape: ModelShape) -> Iterator[StoredTensor]:
    """The matrix of a language model that is not its word table."""
    if not shape.has_tied_head:
        yield same("lm_head.weight", "head.weight", shape.vocab_size, shape.embed_dim)
