"""A network on its way through a recipe, and what the stages work with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from search.compress.distill import TaskData
from search.compress.integer import Peaks, by_integers
from search.compress.pieces import Spec, trimmed_tokenizer
from search.compress.rereading import Rereading
from search.compress.rounding import stored_bytes
from search.compress.teachers import Teacher
from search.costs import flops, num_params, size_bytes
from search.errors import InvalidInput
from search.model.extract import extract
from search.model.linears import Around, around_linears
from search.model.transformer import Batch, ElasticTransformer
from search.shape import ModelShape
from search.space import SubnetConfig
from search.training.batches import TokenRows
from search.training.loop import LossesAt, TrainingRun
from search.training.order import BatchOrder
from search.training.rows import Rows
from search.training.supernet import TargetOf

Masks = Mapping[str, Tensor]


class Memory(Protocol):
    """What a training keeps from step to step beside its run: masks, or scores that add up."""

    def tensors(self) -> dict[str, Tensor]: ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave."""


Advance = Callable[[TrainingRun, LossesAt, Memory | None], None]
"""Brings a run of a stage to its end. One that is cut into slices raises where a slice ends, and
is given the same runs again, in the same order, to go on with."""


class Ask(Protocol):
    """How a named teacher's answers on all rows are come by."""

    def __call__(
        self, teacher: Teacher, rows: Rows, *, relations: bool, attention: bool
    ) -> TargetOf: ...


def to_the_end(run: TrainingRun, losses_at: LossesAt, memory: Memory | None) -> None:
    del memory
    run.advance(losses_at, should_stop=lambda: False)


@dataclass(frozen=True, slots=True)
class Compressed:
    """What a stage is given and hands on.

    Attributes:
        model: as small as it is by now.
        subnet: which of the original's layers it keeps, its widths and its precision.
        masks: of matrices by name, (out, in) bool: where one is False its weight stays zero.
        format: of the weights as stored, one of `rounding.FORMATS`; None where `subnet` tells.
        kept_tokens: ids of the original's vocabulary that the network still has, ascending: their
            places are its own ids. None: all, as they are.
        heads: of each layer, which of the original layer's key-value heads it has, in its own
            order; None: the first ones.
        peaks: of a network of whole numbers alone, the largest that each part reads; see
            `search.compress.integer`.
    """

    model: ElasticTransformer
    subnet: SubnetConfig
    masks: Masks = field(default_factory=dict)
    format: str | None = None
    kept_tokens: Tensor | None = None
    heads: tuple[tuple[int, ...], ...] | None = None
    peaks: Peaks = field(default_factory=dict)

    @classmethod
    def whole(cls, model: ElasticTransformer) -> Self:
        return cls(model, model.sizes)

    @property
    def num_params(self) -> int:
        return num_params(self.model.shape, self.subnet)

    @property
    def num_zeros(self) -> int:
        """Weights that masks keep at zero."""
        return sum(int((~mask).sum()) for mask in self.masks.values())

    @property
    def size_bytes(self) -> int:
        """Of the weights as stored, zeros included."""
        if self.format is not None:
            return stored_bytes(self.model, self.format)
        return size_bytes(self.model.shape, self.subnet)

    @contextmanager
    def running(self) -> Iterator[ElasticTransformer]:
        """The model as it answers where it is deployed."""
        if not self.peaks:
            yield self.model
            return
        with by_integers(copied(self.model).double(), self.peaks) as model:
            yield model

    def flops(self, seq_len: int) -> int:
        return flops(self.model.shape, self.subnet, seq_len=seq_len)

    def smaller(self, sizes: SubnetConfig) -> Self:
        """The prefix `sizes` of the model, its layers numbered as the model has them."""
        kept = tuple(self.subnet.layers[layer] for layer in sizes.layers)
        shared = self.model.shape.queries_per_group
        counts = (count // shared for count in sizes.num_heads)
        return replace(
            self,
            model=extract(self.model, sizes),
            subnet=replace(sizes, layers=kept),
            heads=None
            if self.heads is None
            else tuple(self.heads[la][:n] for la, n in zip(sizes.layers, counts, strict=True)),
        )

    def with_sorted_heads(self, orders: Sequence[Tensor]) -> Self:
        """The same, after the model's key-value heads were put into these orders, one a layer."""
        counts = (n // self.model.shape.queries_per_group for n in self.subnet.num_heads)
        heads = self.heads or tuple(tuple(range(count)) for count in counts)
        sorted_ = (
            tuple(mine[i] for i in order.tolist())
            for mine, order in zip(heads, orders, strict=True)
        )
        return replace(self, heads=tuple(sorted_))

    @property
    def query_heads(self) -> tuple[tuple[int, ...], ...]:
        """Of each layer, which of the original layer's query heads it has, in its own order."""
        shared = self.model.shape.queries_per_group
        if self.heads is None:
            return tuple(tuple(range(count)) for count in self.subnet.num_heads)
        return tuple(
            tuple(head * shared + query for head in layer for query in range(shared))
            for layer in self.heads
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StageData:
    """What stages learn from and measure on.

    Attributes:
        seq_len: tokens of the input that FLOPs are counted for.
        num_batches: of the training split, on which importance is measured.
        tokenizer: what tokenizer.json says that the rows were made with; only a vocabulary that
            is trimmed needs it.
        texts: more of what the network will read, whose tokens stay in such a vocabulary.
        unlabelled: rows whose labels nobody asks for, for stages that learn without.
        label_names: of the classes, in their order; empty where there are none.
        teachers: networks that a stage may name as its teacher.
        teacher: the one of them whose answers `task` has by now; None: the original's.
        ask: has answers of a named teacher that were kept from before; None: it is asked here.
        advance: all training of a stage goes through it.
    """

    task: TaskData
    seq_len: int
    seed: int = 0
    num_batches: int = 12
    tokenizer: Spec | None = None
    texts: tuple[str, ...] = ()
    unlabelled: Rows | None = None
    label_names: tuple[str, ...] = ()
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    teacher: Teacher | None = None
    ask: Ask | None = None
    advance: Advance = to_the_end

    def teacher_named(self, field: str, name: str) -> Teacher:
        """Raises: InvalidInput of `field`, naming those that there are."""
        if name not in self.teachers:
            known = f"one of {sorted(self.teachers)}" if self.teachers else "empty: none is given"
            raise InvalidInput(field, f"must be {known}, got {name!r}")
        return self.teachers[name]

    def batches_for(self, model: ElasticTransformer) -> Iterator[tuple[Batch, Tensor]]:
        """A few of the training split, with their labels, where the model is."""
        device = next(model.parameters()).device
        order = BatchOrder(self.task.train, self.task.batch_size, self.seed, device=device)
        for step in range(min(self.num_batches, order.steps_per_epoch)):
            _, batch, labels = order[step]
            yield batch, labels

    def read_under(self, model: ElasticTransformer, around: Around) -> None:
        """The model reads those batches and learns nothing; who watches its matrices sees them."""
        model.eval()
        with torch.no_grad(), around_linears(model, around):
            for batch, _ in self.batches_for(model):
                model(batch)

    def read_by(self, network: Compressed) -> Self:
        """The same, in the ids of the network's own vocabulary."""
        if network.kept_tokens is None:
            return self
        rereading, tokenizer = _rereading(network, self.tokenizer)
        return replace(
            self,
            task=rereading.task(self.task),
            tokenizer=trimmed_tokenizer(tokenizer, network.kept_tokens.tolist()),
        )

    def num_steps(self, epochs: float) -> int:
        return max(1, round(epochs * len(self.task.train) / self.task.batch_size))


def rows_read_by(network: Compressed, rows: Rows, tokenizer: Spec | None) -> Rows:
    """Rows in the ids of the network's own vocabulary.

    Args:
        tokenizer: the one that made the rows; only a vocabulary that was trimmed needs it.
    """
    if network.kept_tokens is None:
        return rows
    assert isinstance(rows, TokenRows)
    rereading, _ = _rereading(network, tokenizer)
    return rereading.reread(rows).rows


def _rereading(network: Compressed, tokenizer: Spec | None) -> tuple[Rereading, Spec]:
    assert network.kept_tokens is not None
    if tokenizer is None:
        raise InvalidInput("data.tokenizer", "is needed for a vocabulary that was trimmed")
    return Rereading.of(tokenizer, network.kept_tokens, network.model.shape), tokenizer


def apply_masks_(model: ElasticTransformer, masks: Masks) -> None:
    """Set what is masked to zero, in place."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].mul_(mask.to(parameters[name].device))


def copied(model: ElasticTransformer) -> ElasticTransformer:
    other = blank(model, model.shape)
    other.load_state_dict(model.state_dict())
    return other


def blank(model: ElasticTransformer, shape: ModelShape) -> ElasticTransformer:
    """One of the model's sizes and another shape, whose weights are still to be loaded."""
    return ElasticTransformer(
        shape, model.sizes, dropout=model.dropout, weight_bits=model.weight_bits
    )
