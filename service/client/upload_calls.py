"""Models and data on their way to the server: declared, sent, then checked there as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from search.errors import InvalidInput
from service.client.calls import Call, FileBody, delete, nothing, path_of, post, reads
from service.client.downloads import sha256_of
from service.client.errors import ApiError, NotFound, Unreachable
from service.client.plans import Plan, ask, work
from service.schemas import Upload

SEND_TIMEOUT_SECONDS = 300.0
DISCARD_TIMEOUT_SECONDS = 5.0
# Of a model folder only these are needed; anything else in it stays where it is.
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "README.md",
)
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
    files = _model_files(folder, field)
    return (yield from _upload(kind, files, {} if kind == "model" else {"task": task}))


def upload_file(
    path: Path,
    *,
    kind: Literal["dataset", "unlabelled"] = "dataset",
    task: str = "text-classification",
    columns: Mapping[str, str | None] | None = None,
) -> Plan[Upload]:
    """Upload a data file for a task; `columns` by role, as `DataSource` and `UnlabelledSource`
    have them."""
    if not path.is_file():
        field = "data.path" if kind == "dataset" else "unlabelled.path"
        raise InvalidInput(field, f"{str(path)!r} is not a file")
    return (yield from _upload(kind, [path], {"task": task, **(columns or {})}))


def _model_files(folder: Path, field: str) -> list[Path]:
    if not folder.is_dir():
        raise InvalidInput(field, f"{str(folder)!r} is not a folder")
    files = [folder / name for name in MODEL_FILES if (folder / name).is_file()]
    if folder / "model.safetensors" not in files:
        files += sorted(folder.glob("model-*-of-*.safetensors"))
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


def _upload(kind: str, paths: Iterable[Path], read_as: Mapping[str, str | None]) -> Plan[Upload]:
    by_name = {path.name: path for path in paths}
    files = yield from work(lambda: [_described(name, path) for name, path in by_name.items()])
    body = {"kind": kind, "files": files, **read_as}
    upload = yield from ask(post(reads(Upload), path_of("uploads"), body))
    try:
        for file in upload.files:
            if not file["received"]:
                yield from ask(_send_file(upload.id, by_name[file["name"]]))
        finalize = post(reads(Upload), path_of("uploads", upload.id, "finalize"))
        return (yield from ask(finalize))
    except NotFound:
        raise
    except BaseException:
        yield from _discard(upload.id)
        raise


def _described(name: str, path: Path) -> dict[str, Any]:
    return {"name": name, "size_bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _send_file(upload_id: str, path: Path) -> Call[None]:
    return Call(
        method="PUT",
        path=path_of("uploads", upload_id, "files", path.name),
        parse=nothing,
        body=FileBody(path=path),
        headers={"Content-Length": str(path.stat().st_size)},
        timeout_s=SEND_TIMEOUT_SECONDS,
    )


def _discard(upload_id: str) -> Plan[None]:
    """Leave nothing behind; when even this fails, the server sweeps it up later."""
    try:
        yield from ask(
            delete(path_of("uploads", upload_id), timeout_s=DISCARD_TIMEOUT_SECONDS, max_tries=1)
        )
    except (ApiError, Unreachable):
        return
