"""Uploads as steps need them: a model's files as a folder, and what they are known by."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from search.data.dataset import table_of
from search.model.checkpoint import WEIGHTS_FILE
from workers.context import JobContext


def link_upload(ctx: JobContext, upload_id: str) -> Path:
    """The files of a finished upload as a folder of its own, by links into the store."""
    folder = Path(tempfile.mkdtemp(dir=ctx.scratch))
    for name, sha256 in ctx.upload_files(upload_id).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(ctx.blob(sha256))
    return folder


def link_table(ctx: JobContext, upload_id: str, *, is_labelled: bool = True) -> Path:
    """The same of data; the table, with the files that it lists beside it."""
    names = ctx.upload_files(upload_id)
    table = table_of(names, ctx.spec.task, is_labelled=is_labelled)
    return link_upload(ctx, upload_id) / table


def weights_sha256(model_files: Mapping[str, str]) -> str:
    """Of the one file of weights, or of a list of its shards as `sha256sum` prints it."""
    if WEIGHTS_FILE in model_files:
        return model_files[WEIGHTS_FILE]
    return files_sha256({n: h for n, h in model_files.items() if n.endswith(".safetensors")})


def data_sha256(data_files: Mapping[str, str]) -> str:
    """Of the one file, or of the list of a table and its images."""
    return files_sha256(data_files) if len(data_files) > 1 else next(iter(data_files.values()))


def files_sha256(files: Mapping[str, str]) -> str:
    listed = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256(listed.encode()).hexdigest()
