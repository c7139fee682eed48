"""What several steps load: rows, networks, the teacher's outputs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

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
    return _teacher_outputs(
        ctx.blob(state.blobs.teacher),
        ctx.blob(state.blobs.train),
        state.model_shape,
        relations=relations or ctx.spec.training.loss.relations > 0,
        attention=attention,
    )


@lru_cache(maxsize=1)
def _teacher_outputs(
    teacher: Path, rows: Path, shape: ModelShape, *, relations: bool, attention: bool
) -> TargetOf:
    model = ElasticTransformer(shape)
    load_weights_(model, teacher)
    model.to(training_device())
    return teacher_of(model, read_rows(rows), relations=relations, attention=attention)


def task_data(
    ctx: JobContext, state: State, *, relations: bool = False, attention: bool = False
) -> TaskData:
    """See `teacher_outputs`."""
    return TaskData(
        train=load_rows(ctx, state.blobs.train),
        validation=load_rows(ctx, state.blobs.validation),
        target_of=teacher_outputs(ctx, state, relations=relations, attention=attention),
        batch_size=ctx.spec.training.batch_size,
        accumulation=ctx.spec.training.accumulation,
    )


def set_threads(ctx: JobContext) -> None:
    if ctx.settings.threads:
        torch.set_num_threads(ctx.settings.threads)
