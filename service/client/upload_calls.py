"""Models and data on their way to the server: declared, sent, then checked there as a whole."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from search.data.listing import listed_files, lists_images
from search.errors import InvalidInput
from service.client.calls import (
    LONG_POLL_SECONDS,
    Call,
    FileBody,
    delete,
    nothing,
    path_of,
    post,
    reads,
)
from service.client.downloads import sha256_of
from service.client.errors import ApiError, NotFound, Unreachable
from service.client.plans import Plan, ask, work
from service.uploads.model_files import MODEL_FILES, needed_files
from service.uploads.upload_schemas import Upload

SEND_TIMEOUT_SECONDS = 300.0
DISCARD_TIMEOUT_SECONDS = 5.0
UNSETTLED = ("fetching", "checking")
PAUSE_SECONDS = 0.2
"""Between two questions whether an upload is ready; the server waits itself, unless it ends."""
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def upload_folder(
    folder: Path,
    *,
    kind: Literal["model", "teacher"] = "model",
    task: str = "text-classification",
    field: str = "model.path",
) -> Plan[Upload]:
    """Upload a model folder: its weights, config and tokenizer.

    Args:
        task: that a teacher is to teach.
        field: to blame for what is wrong with the folder.

    Raises:
        InvalidInput: the folder is missing, or lacks what a model needs.
    """
    by_name = {path.name: path for path in _model_files(folder, field)}
    return (yield from _upload(kind, by_name, {} if kind == "model" else {"task": task}))


def upload_file(
    path: Path,
    *,
    kind: Literal["dataset", "unlabelled"] = "dataset",
    task: str = "text-classification",
    columns: Mapping[str, str | None] | None = None,
) -> Plan[Upload]:
    """Upload a data file for a task, with the images that it lists, where it lists any; `columns`
    by role, as `DataSource` and `UnlabelledSource` have them."""
    part = "data" if kind == "dataset" else "unlabelled"
    if not path.is_file():
        raise InvalidInput(f"{part}.path", f"{str(path)!r} is not a file")
    by_name = {path.name: path}
    if lists_images(task, path.name):
        column = (columns or {}).get("image") or "image"
        names = yield from work(lambda: listed_files(path, column))
        by_name |= {name: path.parent / name for name in names}
        for name in names:
            if not by_name[name].is_file():
                raise InvalidInput(f"{part}.image", f"{path.name} lists {name}: no such file")
    return (yield from _upload(kind, by_name, {"task": task, **(columns or {})}))


def upload_from_hub(
    repo: str,
    *,
    revision: str = "main",
    file: str | None = None,
    kind: Literal["model", "teacher", "dataset", "unlabelled"] = "model",
    task: str = "text-classification",
    columns: Mapping[str, str | None] | None = None,
) -> Plan[Upload]:
    """Have the server fetch a model, or a file of data, from a hub; wait until it has."""
    source = {"repo": repo, "revision": revision, "file": file}
    read_as = {} if kind == "model" else {"task": task, **(columns or {})}
    body = {"kind": kind, "hub": source, **read_as}
    upload = yield from ask(post(reads(Upload), path_of("uploads"), body))
    try:
        return (yield from _finalize(upload.id))
    except BaseException:
        yield from _discard(upload.id)
        raise


def _model_files(folder: Path, field: str) -> list[Path]:
    if not folder.is_dir():
        raise InvalidInput(field, f"{str(folder)!r} is not a folder")
    names = {path.name for path in folder.iterdir() if path.is_file()}
    files = [folder / name for name in needed_files(names)]
    pickles = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICKLE_SUFFIXES)
    if pickles and not any(path.suffix == ".safetensors" for path in files):
        raise InvalidInput(
            field,
            f"{pickles[0].name} is a Python pickle, which can run code when it is read, so it "
            "is refused; save the weights as model.safetensors instead",
        )
    if not files:
        raise InvalidInput(field, f"{str(folder)!r} holds none of {MODEL_FILES[:2]}")
    return files


def _upload(
    kind: str, by_name: Mapping[str, Path], read_as: Mapping[str, str | None]
) -> Plan[Upload]:
    files = yield from work(lambda: [_described(name, path) for name, path in by_name.items()])
    body = {"kind": kind, "files": files, **read_as}
    upload = yield from ask(post(reads(Upload), path_of("uploads"), body))
    try:
        for file in upload.files:
            if not file["received"]:
                yield from _send_file(upload, file["name"], by_name[file["name"]])
        return (yield from _finalize(upload.id))
    except NotFound:
        raise
    except BaseException:
        yield from _discard(upload.id)
        raise


def _described(name: str, path: Path) -> dict[str, Any]:
    return {"name": name, "size_bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _finalize(upload_id: str) -> Plan[Upload]:
    """Have it checked, however long that takes."""
    while True:
        finalize = post(
            reads(Upload),
            path_of("uploads", upload_id, "finalize"),
            params={"wait_s": LONG_POLL_SECONDS},
            timeout_s=LONG_POLL_SECONDS + 15.0,
        )
        upload = yield from ask(finalize)
        if upload.state not in UNSETTLED:
            return upload
        yield from work(lambda: time.sleep(PAUSE_SECONDS))


def _send_file(upload: Upload, name: str, path: Path) -> Plan[None]:
    """Whole, or in chunks where it is large: what breaks off is one of them."""
    place, size_bytes = ("uploads", upload.id, "files", name), path.stat().st_size
    if size_bytes <= upload.chunk_bytes:
        length = {"Content-Length": str(size_bytes)}
        yield from ask(_put(path_of(*place), FileBody(path=path), length))
        return
    for index in range(-(-size_bytes // upload.chunk_bytes)):
        start = index * upload.chunk_bytes
        chunk = yield from work(partial(_read, path, start, upload.chunk_bytes))
        digest = base64.b64encode(hashlib.sha256(chunk).digest()).decode()
        headers = {"Content-Digest": f"sha-256=:{digest}:"}
        yield from ask(_put(path_of(*place, "chunks", str(index)), chunk, headers))


def _put(path: str, body: bytes | FileBody, headers: Mapping[str, str]) -> Call[None]:
    return Call(
        method="PUT",
        path=path,
        parse=nothing,
        body=body,
        headers=headers,
        timeout_s=SEND_TIMEOUT_SECONDS,
    )


def _read(path: Path, start: int, num_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(num_bytes)


def _discard(upload_id: str) -> Plan[None]:
    """Leave nothing behind; when even this fails, the server sweeps it up later."""
    try:
        yield from ask(
            delete(path_of("uploads", upload_id), timeout_s=DISCARD_TIMEOUT_SECONDS, max_tries=1)
        )
    except (ApiError, Unreachable):
        return
