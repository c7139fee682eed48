"""ONNX files of any size: beyond what one protobuf message holds, weights go beside the graph."""

from __future__ import annotations

from pathlib import Path

import onnx

# A message of protobuf ends at 2 GiB; a graph without its weights is far below the rest.
MAX_INLINE_BYTES = 2**31 - 2**24
# Smaller constants stay in the graph: runtimes read sizes from it while they load it.
MIN_EXTERNAL_BYTES = 1024


def external_file(path: Path) -> Path:
    """Where weights of an ONNX file are if they are not in it; runtimes look beside it."""
    return path.with_name(f"{path.name}_data")


def files_of(path: Path) -> tuple[Path, ...]:
    """An ONNX file, and that of its weights if it has one."""
    return tuple(file for file in (path, external_file(path)) if file.exists())


def save_onnx(model: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """Writes `path`, and its weights to a file of their own if they are too large for one.

    Returns:
        The files, which have to stay in one folder under these names. `model` is used up: its
        weights may be gone.
    """
    # onnx appends to a file of weights that is there.
    external_file(path).unlink(missing_ok=True)
    if weight_bytes(model) <= MAX_INLINE_BYTES:
        onnx.save(model, path)
        return (path,)
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=external_file(path).name,
        size_threshold=MIN_EXTERNAL_BYTES,
    )
    return files_of(path)


def weight_bytes(model: onnx.ModelProto) -> int:
    # Not `ByteSize`, which fails just where it matters.
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)
