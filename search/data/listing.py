"""Images as files of their own, listed in JSON Lines beside them. No numpy: a client reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from search.data.tables import read_table
from search.errors import InvalidInput

MAX_LISTED_FILES = 10_000
# No absolute path, no `..`, no hidden file: safe below any folder, on a disk as in a URL.
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}"
FILE_PATH = re.compile(rf"{_PART}(?:/{_PART}){{0,3}}")


def lists_images(task: str, name: str) -> bool:
    """Whether a data file of this name holds the names of images, each a file of its own."""
    return task == "image-classification" and name.lower().endswith(".jsonl")


def listed_files(listing: Path, column: str) -> list[str]:
    """Names of the images that a `.jsonl` file lists, each once, in its order.

    Raises:
        InvalidInput: a line that names none, or too many images.
    """
    names: dict[str, None] = {}
    for line, row in read_table(listing, ".jsonl", {"image": column}):
        names[check_file_path(row["image"], line)] = None
        if len(names) > MAX_LISTED_FILES:
            raise InvalidInput(
                "data",
                f"lists more than {MAX_LISTED_FILES} images; put so many into one Parquet file",
            )
    return list(names)


def check_file_path(value: Any, line: int) -> str:
    """A name that cannot lead out of the listing's folder."""
    if not isinstance(value, str) or not FILE_PATH.fullmatch(value):
        raise InvalidInput(
            "data.image",
            f"line {line}: {value!r:.80} is no name of an image beside the listing: letters, "
            "digits, '_', '-' and '.', in at most three folders",
        )
    return value
