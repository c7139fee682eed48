"""One supernet of the small language task, trained in one of the ways that are compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.small_language import (
    BATCH_SIZE,
    SHAPE,
    Splits,
    accuracy,
    copy_of,
    log_likelihood,
    new_network,
    read_source,
    reorder_by_importance_,
    train,
    train_plainly,
)
from search.model.extract import extract
from search.model.transformer import ElasticTransformer
from search.space import SearchSpace, SubnetConfig
from search.training.loop import load_weights_, save_weights
from search.training.losses import DistillationLoss
from search.training.order import BatchOrder
from search.training.sampling import Sampling, SubnetSampler
from search.training.supernet import distillation_losses, inplace_losses, supernet_losses
from search.training.teacher import LiveTeacher

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Optimizer steps of each training, and rows of the splits."""

    teacher: int = 1200
    supernet: int = 600
    alone: int = 250
    held_rows: int = 750

    @property
    def train_rows(self) -> int:
        """No text is seen twice, whatever is trained after the teacher."""
        return BATCH_SIZE * (self.teacher + max(self.supernet, self.alone))


QUICK = Lengths(teacher=8, supernet=4, alone=3, held_rows=16)
TEACHER_RATE = 4e-3
STUDENT_RATE = 2e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a supernet is trained.

    Attributes:
        teacher: `fixed`, `inplace`, or `none` to learn from the labels alone.
        is_reordered: whether it starts from the teacher with its units sorted by importance.
        relations: weight of the attention relations.
    """

    sampling: Sampling = field(default_factory=Sampling)
    teacher: str = "fixed"
    is_reordered: bool = True
    relations: float = 0.0


class Study:
    """The texts and the trained teacher that all trainings of a benchmark share."""

    def __init__(self, folder: Path, lengths: Lengths) -> None:
        self.folder = folder
        self.lengths = lengths
        self.splits: Splits = read_source(lengths.train_rows, lengths.held_rows)

    def prepare(self, space: SearchSpace) -> SearchSpace:
        """Trains the teacher, sorts a copy of it; the space with its layers ranked."""
        teacher = new_network(0)
        train_plainly(
            teacher,
            self.splits.train,
            num_steps=self.lengths.teacher,
            learning_rate=TEACHER_RATE,
            seed=0,
        )
        save_weights(teacher, self._path(is_reordered=False))
        layer_order = reorder_by_importance_(teacher, self.splits)
        save_weights(teacher, self._path(is_reordered=True))
        return space.with_layer_order(layer_order)

    def teacher(self, *, is_reordered: bool = True) -> ElasticTransformer:
        model = new_network(0)
        load_weights_(model, self._path(is_reordered=is_reordered))
        return model

    def continued(self, seed: int) -> ElasticTransformer:
        """The teacher trained on plainly, for as long as a supernet: what its largest subnet is
        held against."""
        model = self.teacher()
        train_plainly(
            model,
            self.splits.train,
            num_steps=self.lengths.supernet,
            learning_rate=STUDENT_RATE,
            seed=100 + seed,
        )
        return model

    def supernet(self, space: SearchSpace, recipe: Recipe, seed: int) -> ElasticTransformer:
        teacher = self.teacher(is_reordered=recipe.is_reordered)
        model = copy_of(teacher)
        num_steps = self.lengths.supernet
        sampler = SubnetSampler(space, recipe.sampling, total_steps=num_steps, seed=seed)
        order = BatchOrder(self.splits.train, BATCH_SIZE, 100 + seed)
        loss = DistillationLoss.for_shape(SHAPE, relations=recipe.relations)
        if recipe.teacher == "inplace":
            losses_at = inplace_losses(model, order, sampler, loss)
        else:
            target_of = LiveTeacher(teacher) if recipe.teacher == "fixed" else None
            losses_at = supernet_losses(model, order, sampler, target_of, loss)
        train(
            model,
            losses_at,
            num_steps=num_steps,
            learning_rate=STUDENT_RATE,
            seed=seed,
            restart_at=sampler.num_width_steps,
        )
        return model

    def alone(self, subnet: SubnetConfig, seed: int) -> float:
        """Log-likelihood of a subnet that was cut out of the teacher and distilled by itself."""
        teacher = self.teacher()
        student = extract(teacher, subnet)
        student.dropout = 0.0
        order = BatchOrder(self.splits.train, BATCH_SIZE, 200 + seed)
        loss = DistillationLoss.for_shape(SHAPE)
        losses_at = distillation_losses(student, subnet, order, LiveTeacher(teacher), loss)
        train(
            student,
            losses_at,
            num_steps=self.lengths.alone,
            learning_rate=STUDENT_RATE,
            seed=seed,
        )
        return log_likelihood(student, self.splits.held)

    def _path(self, *, is_reordered: bool) -> Path:
        return self.folder / f"teacher-{'reordered' if is_reordered else 'plain'}.safetensors"


@dataclass(frozen=True, slots=True)
class Extremes:
    """Of a supernet: how its ends did. Accuracies are shares of the bytes."""

    largest: float
    largest_accuracy: float
    smallest: float
    seconds: float


def extremes_of(
    study: Study, model: ElasticTransformer, space: SearchSpace, seconds: float
) -> Extremes:
    held = study.splits.held
    return Extremes(
        largest=log_likelihood(model, held, space.largest),
        largest_accuracy=accuracy(model, held, space.largest),
        smallest=log_likelihood(model, held, space.smallest),
        seconds=round(seconds, 1),
    )


def in_parallel(function: Callable[[A], R], arguments: Sequence[A], jobs: int) -> Iterator[R]:
    """Results in order; each process computes with one thread."""
    if jobs == 1:
        yield from map(function, arguments)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=torch.set_num_threads, initargs=(1,)) as p:
        yield from p.map(function, arguments)


class Stopwatch:
    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
