"""What several steps load: rows, networks, the teacher's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch

from search.compress.distill import TaskData
from search.model.transformer import ElasticTransformer
from search.shape import ModelShape
from search.space import SubnetConfig
from search.training.distributed import training_device
from search.training.encoding import load_rows as read_rows
from search.training.loop import load_weights_
from search.training.rows import Rows
from search.training.supernet import TargetOf
from search.training.teacher import teacher_of
from workers.context import JobContext
from workers.steps.state import State


def load_rows(ctx: JobContext, sha256: str) -> Rows:
    return read_rows(ctx.blob(sha256))


def load_network(
    ctx: JobContext, state: State, sha256: str | None, sizes: SubnetConfig | None = None
) -> ElasticTransformer:
    """A network with the weights of a blob; `sizes` None is the largest."""
    assert sha256 is not None, "an earlier step has stored the weights"
    model = ElasticTransformer(state.model_shape, sizes, weight_bits=state.weight_bits)
    load_weights_(model, ctx.blob(sha256))
    return model


def teacher_outputs(
    ctx: JobContext, state: State, *, relations: bool = False, attention: bool = False
) -> TargetOf:
    """The teacher's outputs on the training rows, kept in memory from step to step if they fit.

    Nothing depends on their being there: a worker that starts anew computes the same again.

    Args:
        relations: whether those of attention are needed, though the job's own loss has none.
        attention: whether every layer's attention is.
    """
    assert state.blobs.teacher is not None
    return outputs_on(
        Original(ctx.blob(state.blobs.teacher), state.model_shape),
        ctx.blob(state.blobs.train),
        relations=relations or ctx.spec.training.loss.relations > 0,
        attention=attention,
    )


class Stored(Protocol):
    """A teacher that can be loaded; equal ones are the same network."""

    def __hash__(self) -> int: ...

    def load(self) -> ElasticTransformer:
        """Where students are trained."""


@dataclass(frozen=True, slots=True)
class Original:
    """The job's own model, fine-tuned."""

    weights: Path
    shape: ModelShape

    def load(self) -> ElasticTransformer:
        model = ElasticTransformer(self.shape)
        load_weights_(model, self.weights)
        return model.to(training_device())


@lru_cache(maxsize=1)
def outputs_on(teacher: Stored, rows: Path, *, relations: bool, attention: bool) -> TargetOf:
    """A teacher's outputs on all rows of a file. Those that were asked for last stay in memory:
    of one teacher, since they may fill it."""
    return teacher_of(teacher.load(), read_rows(rows), relations=relations, attention=attention)


def task_data(ctx: JobContext, state: State, target_of: TargetOf | None = None) -> TaskData:
    """`target_of` None: the teacher's outputs as the job's own training needs them."""
    return TaskData(
        train=load_rows(ctx, state.blobs.train),
        validation=load_rows(ctx, state.blobs.validation),
        target_of=target_of or teacher_outputs(ctx, state),
        batch_size=ctx.spec.training.batch_size,
        accumulation=ctx.spec.training.accumulation,
    )


def set_threads(ctx: JobContext) -> None:
    if ctx.settings.threads:
        torch.set_num_threads(ctx.settings.threads)
