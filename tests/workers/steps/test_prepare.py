from __future__ import annotations

import hashlib

from workers.steps.uploads import weights_sha256


def test_one_file_of_weights_is_known_by_its_own_hash() -> None:
    files = {"config.json": "c" * 64, "model.safetensors": "a" * 64}
    assert weights_sha256(files) == "a" * 64


def test_shards_are_known_by_the_hash_of_what_sha256sum_prints_of_them() -> None:
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    files = {second: "b" * 64, "config.json": "c" * 64, first: "a" * 64}
    printed = f"{'a' * 64}  {first}\n{'b' * 64}  {second}\n"
    assert weights_sha256(files) == hashlib.sha256(printed.encode()).hexdigest()
    assert weights_sha256({**files, first: "d" * 64}) != weights_sha256(files)
