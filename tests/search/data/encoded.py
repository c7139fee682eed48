"""Encoded images for tests, and the tables that hold or list them."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
NAMES = ["cat" if i % 2 else "dog" for i in range(len(PIXELS))]


def png(pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def write_parquet(path: Path, schema: pa.Schema | None = None, **columns: Any) -> Path:
    pq.write_table(pa.table(columns, schema=schema), path)
    return path


def write_listing(folder: Path, images: dict[str, bytes], lines: list[Any] | None = None) -> Path:
    """A folder of images and the `data.jsonl` that lists them, or these lines."""
    for name, content in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if lines is None:
        lines = [{"image": n, "label": NAMES[i]} for i, n in enumerate(images)]
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def images_in(folder: str = "images") -> dict[str, bytes]:
    return {f"{folder}/{i:03}.png": png(pixels) for i, pixels in enumerate(PIXELS)}
