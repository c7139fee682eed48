"""Which files of a model folder are needed; anything else in it stays where it is."""

from __future__ import annotations

import re
from collections.abc import Collection

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
SHARD = re.compile(r"model-[^/]*-of-[^/]*\.safetensors")


def needed_files(names: Collection[str]) -> list[str]:
    """Of the names in a folder: `MODEL_FILES`, and shards where no file has all weights."""
    needed = [name for name in MODEL_FILES if name in names]
    if "model.safetensors" not in needed:
        needed += sorted(name for name in names if SHARD.fullmatch(name))
    return needed
