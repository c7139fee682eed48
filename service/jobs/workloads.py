"""A workload as it is asked for, and what a model makes of what was left open."""

from __future__ import annotations

from typing import Any

from predictors.bounds import PHASES_OF_FAMILY
from predictors.workload import Workload
from search.errors import InvalidInput
from search.shape import ModelShape
from service.jobs.job_spec import WorkloadSpec

DEFAULT_SEQ_LEN = 64


def workload_for(asked: WorkloadSpec, shape: ModelShape, **changes: Any) -> Workload:
    """In the model's first phase, and of 64 tokens or an image's, unless something else is asked.

    Args:
        changes: of what is asked.

    Raises:
        InvalidInput: the model has no such phase, or reads no input of that length.
    """
    data = asked.model_dump() | changes
    phases = PHASES_OF_FAMILY[shape.family]
    if data["phase"] is None:
        data["phase"] = phases[0]
    elif data["phase"] not in phases:
        known = ", ".join(phases)
        raise InvalidInput("workload.phase", f"a {shape.family} model has {known}")
    if data["seq_len"] is None:
        fallback = min(DEFAULT_SEQ_LEN, shape.max_seq_len)
        data["seq_len"] = shape.max_seq_len if shape.reads_images else fallback
    _check_length(data["seq_len"], data["phase"], shape)
    return Workload.from_dict(data)


def _check_length(seq_len: int, phase: str, shape: ModelShape) -> None:
    if shape.reads_images and seq_len != shape.max_seq_len:
        raise InvalidInput(
            "workload.seq_len", f"an image of this model is {shape.max_seq_len} tokens"
        )
    longest = shape.max_seq_len - (1 if phase == "decode" else 0)
    if seq_len > longest:
        raise InvalidInput(
            "workload.seq_len", f"must be at most {longest}, the model's positions, got {seq_len}"
        )
