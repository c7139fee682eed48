"""What stages learn from beside the job's own data: further teachers, and rows without labels."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from search.compress.configs import DistillRelationsConfig
from search.compress.network import Ask, StageData
from search.compress.recipe import StageConfig
from search.compress.teacher_facts import read_facts
from search.compress.teachers import Teacher, check_reads, read_teacher
from search.compress.training import where_trained
from search.data.dataset import read_unlabelled
from search.data.splits import SPLITS
from search.errors import InvalidInput
from search.model.transformer import Batch, ElasticTransformer, Output
from search.shape import ModelShape
from search.training.encoding import encode_unlabelled
from search.training.rows import Rows, places_of_new
from search.training.supernet import TargetOf
from service.jobs.compress_spec import teacher_of
from service.jobs.teaching import check_for_stages
from workers.context import JobContext
from workers.steps.artifacts import reader_name
from workers.steps.data import load_rows, outputs_on, task_data, teacher_outputs
from workers.steps.network import tokenizer_spec
from workers.steps.state import State
from workers.steps.uploads import link_table, link_upload

HELD_OUT = SPLITS[1:]


def with_sources(ctx: JobContext, state: State) -> State:
    """With the rows without labels stored, after it is clear that every teacher can teach.

    Raises:
        InvalidInput: a teacher that does other things than the model, or rows that it cannot read.
    """
    if ctx.spec.unlabelled is not None:
        state = _with_unlabelled(ctx, state)
    if not ctx.spec.teachers:
        return state
    shape, tokenizer = state.model_shape, tokenizer_spec(ctx, state)
    read = [load_rows(ctx, s) for s in (state.blobs.train, state.blobs.unlabelled) if s]
    for name, source in ctx.spec.teachers.items():
        facts = read_facts(link_upload(ctx, source.upload), ctx.spec.task)
        for rows in read:
            check_reads(f"teachers.{name}", facts, shape, rows, tokenizer)
        check_for_stages(ctx.spec, name, facts, shape, state.label_names)
    return state


def stage_data(
    ctx: JobContext, state: State, config: StageConfig | None, *, seq_len: int, seed: int
) -> StageData:
    """What a stage learns from; of None, which learns nothing, what it is measured on."""
    data = StageData(
        task=task_data(ctx, state, _target_of(ctx, state, config)),
        seq_len=seq_len,
        seed=seed,
        tokenizer=tokenizer_spec(ctx, state),
        label_names=state.label_names,
    )
    if isinstance(config, DistillRelationsConfig):
        assert state.blobs.unlabelled is not None, "the job's first step has stored them"
        data = replace(data, unlabelled=load_rows(ctx, state.blobs.unlabelled))
    name = teacher_of(config) if config else ""
    if name:
        stored = _stored(ctx, state, name)
        data = replace(data, teachers={name: stored.teacher}, ask=_kept(ctx, state, stored))
    return data


# --- teachers -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Named:
    """A teacher by the files of its upload, for the task of a shape."""

    files: tuple[tuple[str, Path], ...]
    shape: ModelShape

    @property
    def teacher(self) -> Teacher:
        return _read(self)

    def load(self) -> ElasticTransformer:
        return where_trained(self.teacher.model)


@lru_cache(maxsize=1)
def _read(named: Named) -> Teacher:
    """Kept from step to step: a stage may take many."""
    with tempfile.TemporaryDirectory(prefix="snugnet-teacher-") as folder:
        for name, path in named.files:
            (Path(folder) / name).symlink_to(path)
        return read_teacher(Path(folder), named.shape)


def _stored(ctx: JobContext, state: State, name: str) -> Named:
    files = ctx.upload_files(ctx.spec.teachers[name].upload)
    places = tuple((file, ctx.blob(sha256)) for file, sha256 in sorted(files.items()))
    return Named(places, state.model_shape)


def _kept(ctx: JobContext, state: State, stored: Named) -> Ask:
    """Answers that stay in memory from step to step, as those of the job's own model do."""
    path = ctx.blob(state.blobs.train)

    def ask(teacher: Teacher, rows: Rows, *, relations: bool, attention: bool) -> TargetOf:
        del teacher, rows  # The files that they are from tell whether they are the same.
        return outputs_on(stored, path, relations=relations, attention=attention)

    return ask


def _target_of(ctx: JobContext, state: State, config: StageConfig | None) -> TargetOf:
    """The original's answers; not where nobody asks for them, since they take long."""
    if config is None or teacher_of(config) or isinstance(config, DistillRelationsConfig):
        return _unasked
    parts = {part: bool(getattr(config, part, 0)) for part in ("relations", "attention")}
    return teacher_outputs(ctx, state, **parts)


def _unasked(places: list[int], batch: Batch) -> Output:
    raise AssertionError(f"nobody learns from the original here: {len(places)} rows, {batch}")


# --- rows without labels ------------------------------------------------------------------------


def _with_unlabelled(ctx: JobContext, state: State) -> State:
    """Without those that networks are judged by: they would be asked what they have read."""
    source = ctx.spec.unlabelled
    assert source is not None
    table = link_table(ctx, source.upload, is_labelled=False)
    found = read_unlabelled(table, task=ctx.spec.task, columns=source.columns)
    folder = Path(tempfile.mkdtemp(dir=ctx.scratch))
    (folder / reader_name(state)).symlink_to(ctx.blob(state.blobs.reader))
    rows = encode_unlabelled(
        found, folder, state.model_shape, max_seq_len=ctx.spec.training.max_seq_len
    )
    held_out = [load_rows(ctx, getattr(state.blobs, split)) for split in HELD_OUT]
    places = places_of_new(rows, held_out)
    if not places:
        raise InvalidInput(
            "unlabelled",
            "must have rows that are in none of the splits that networks are judged by",
        )
    path = ctx.scratch / "unlabelled.safetensors"
    (rows if len(places) == len(rows) else rows.select(places)).save(path)
    ctx.event(
        "unlabelled",
        f"{len(places):,} rows without labels; {len(rows) - len(places):,} more are left out, "
        "which networks are judged by",
        {"rows": len(places), "held_out": len(rows) - len(places)},
    )
    return state.updated(blobs=state.blobs.updated(unlabelled=ctx.put_blob(path)))
