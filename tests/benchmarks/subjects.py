"""A subject small enough for a test: the teacher of the compression tests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.pipeline import Effort, SmallJob
from benchmarks.subjects import Subject
from predictors.workload import Workload
from search.space import SearchSpace
from tests.search import small
from tests.search.compress.data import BATCH_SIZE, SEQ_LEN, network, ordered, stage_data

RATE = 3e-3
NO_DATASET: Any = None  # its rows are encoded already


@lru_cache(maxsize=1)
def subject() -> Subject:
    effort = Effort(
        max_seq_len=SEQ_LEN,
        batch_size=BATCH_SIZE,
        learning_rate=RATE,
        teacher_epochs=0,
        supernet_epochs=1,
        distill_epochs=2,
    )
    job = SmallJob(
        name="small",
        folder=Path(),
        shape=small.SHAPE,
        dataset=NO_DATASET,
        workload=Workload(seq_len=SEQ_LEN),
        effort=effort,
    )
    rows = {"train": stage_data().task.train, "test": ordered(200, seed=2)}
    rows["validation"] = rows["search"] = stage_data().task.validation
    return Subject(
        job=job,
        whole=network(),
        space=SearchSpace.for_shape(small.SHAPE),
        rows=rows,
        data=stage_data(),
    )
