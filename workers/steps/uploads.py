"""Uploads as steps need them: a model's files as a folder, and what they are known by."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from search.model.checkpoint import WEIGHTS_FILE
from workers.context import JobContext


def link_upload(ctx: JobContext, upload_id: str) -> Path:
    """The files of a finished upload as a folder of its own, by links into the store."""
    folder = Path(tempfile.mkdtemp(dir=ctx.scratch))
    for name, sha256 in ctx.upload_files(upload_id).items():
        (folder / name).symlink_to(ctx.blob(sha256))
    return folder


def weights_sha256(model_files: Mapping[str, str]) -> str:
    """Of the one file of weights, or of a list of its shards as `sha256sum` prints it."""
    if WEIGHTS_FILE in model_files:
        return model_files[WEIGHTS_FILE]
    shards = sorted(name for name in model_files if name.endswith(".safetensors"))
    listed = "".join(f"{model_files[name]}  {name}\n" for name in shards)
    return hashlib.sha256(listed.encode()).hexdigest()
