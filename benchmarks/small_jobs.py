"""A small job for every family, on data that a machine has or that a package carries."""

from __future__ import annotations

import gzip
import json
import random
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.pipeline import Effort, SmallJob
from examples.movie_reviews.prepare import model_folder, prepare_data
from predictors.workload import Workload
from search.data.dataset import read_dataset
from search.data.documents import read_documents
from search.model.checkpoint import check_model_folder
from search.model.fresh import write_fresh_gpt2, write_fresh_vit
from search.shape import ModelShape

FASHION = Path("/usr/share/datasets/fashion-mnist")
SKIPPED = frozenset({"site-packages", "test", "tests", "idlelib", "lib2to3", "encodings"})
SEED = 0


def movie_reviews(folder: Path, *, is_quick: bool) -> SmallJob:
    """MiniLM (BERT) on the sign of human ratings of movie-review sentences."""
    path = _some_lines(prepare_data(folder), 600 if is_quick else 3000)
    return SmallJob(
        name="encoder",
        folder=model_folder(),
        shape=_shape_of(model_folder(), num_labels=2, task="text-classification"),
        dataset=read_dataset(path, task="text-classification"),
        workload=Workload(seq_len=32),
        effort=_quick(
            is_quick,
            Effort(
                max_seq_len=48,
                batch_size=32,
                learning_rate=1e-4,
                teacher_epochs=2,
                supernet_epochs=2,
                distill_epochs=1,
            ),
        ),
    )


def sentence_vectors(folder: Path, *, is_quick: bool) -> SmallJob:
    """MiniLM's own vectors of the same sentences, without their labels."""
    lines = _some_lines(prepare_data(folder), 600 if is_quick else 3000)
    return SmallJob(
        name="embedding",
        folder=model_folder(),
        shape=_shape_of(model_folder(), num_labels=2, task="sentence-embedding"),
        dataset=read_dataset(lines, task="sentence-embedding"),
        workload=Workload(seq_len=32),
        effort=_quick(
            is_quick,
            Effort(
                max_seq_len=48,
                batch_size=32,
                learning_rate=2e-4,
                teacher_epochs=1,
                supernet_epochs=2,
                distill_epochs=1,
            ),
        ),
    )


def source_code(folder: Path, *, is_quick: bool) -> SmallJob:
    """A GPT-2 of four layers, trained here on the standard library's modules."""
    modules = _modules(200_000 if is_quick else 1_500_000)
    path = folder / "modules.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in modules))
    dataset = read_documents(path, ".jsonl", {"text": "text"})
    shape = write_fresh_gpt2(
        folder / "gpt2",
        [dataset.texts[i] for i in dataset.split(SEED).train],
        vocab_size=2048,
        num_layers=4,
        embed_dim=128,
        num_heads=4,
        max_seq_len=128,
    )
    return SmallJob(
        name="decoder",
        folder=folder / "gpt2",
        shape=shape,
        dataset=dataset,
        workload=Workload(seq_len=64, phase="prefill"),
        effort=_quick(
            is_quick,
            Effort(
                max_seq_len=128,
                batch_size=16,
                learning_rate=2e-3,
                teacher_epochs=4,
                supernet_epochs=2,
                distill_epochs=2,
                dropout=0.0,
                search_rows=128,
            ),
        ),
    )


def digits(folder: Path, *, is_quick: bool) -> SmallJob:
    """A ViT of four layers, trained here on scikit-learn's 1,797 digits of 8 x 8."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    return _vision_job(
        "digits",
        folder,
        pixels,
        labels,
        patch_size=2,
        effort=_quick(
            is_quick,
            Effort(
                max_seq_len=17,
                batch_size=32,
                learning_rate=1e-3,
                teacher_epochs=40,
                supernet_epochs=40,
                distill_epochs=20,
                search_rows=170,
                dropout=0.0,
            ),
        ),
    )


def fashion(folder: Path, *, is_quick: bool, source: Path = FASHION) -> SmallJob:
    """A ViT of four layers, trained here on 12,000 pictures of clothes of 28 x 28."""
    pixels = read_idx(source / "train-images-idx3-ubyte.gz")
    labels = read_idx(source / "train-labels-idx1-ubyte.gz")
    count = 2000 if is_quick else 12_000
    return _vision_job(
        "fashion",
        folder,
        pixels[:count],
        labels[:count],
        patch_size=4,
        effort=_quick(
            is_quick,
            Effort(
                max_seq_len=50,
                batch_size=32,
                learning_rate=1e-3,
                teacher_epochs=8,
                supernet_epochs=5,
                distill_epochs=3,
                dropout=0.0,
            ),
        ),
    )


Make = Callable[..., SmallJob]
JOBS: Mapping[str, Make] = {
    "encoder": movie_reviews,
    "embedding": sentence_vectors,
    "decoder": source_code,
    "digits": digits,
    "fashion": fashion,
}


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """An array of bytes in the format of MNIST, gzipped or not.

    Raises:
        ValueError: it is none.
    """
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    zeros, kind, num_axes = content[:2], content[2], content[3]
    start = 4 + 4 * num_axes
    size = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if zeros != b"\0\0" or kind != 8 or len(content) - start != np.prod(size):
        raise ValueError(f"{path.name} is no IDX file of bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(size)


def _vision_job(
    name: str,
    folder: Path,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    *,
    patch_size: int,
    effort: Effort,
) -> SmallJob:
    path = folder / f"{name}.npz"
    np.savez_compressed(path, images=pixels, labels=labels)
    dataset = read_dataset(path, task="image-classification")
    shape = write_fresh_vit(
        folder / "vit",
        image_size=pixels.shape[1],
        patch_size=patch_size,
        num_channels=1,
        num_labels=len(dataset.label_names),
        num_layers=4,
        embed_dim=64,
        num_heads=4,
    )
    return SmallJob(
        name=name,
        folder=folder / "vit",
        shape=shape,
        dataset=dataset,
        workload=Workload(seq_len=shape.max_seq_len),
        effort=effort,
    )


def _shape_of(folder: Path, *, num_labels: int, task: str) -> ModelShape:
    return check_model_folder(folder, num_labels=num_labels, task=task).shape


def _some_lines(path: Path, count: int) -> Path:
    """A file of `count` lines of a larger one, drawn evenly."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    chosen = path.with_name(f"{path.stem}-{count}.jsonl")
    chosen.write_text("".join(lines[i * len(lines) // count] for i in range(count)))
    return chosen


def _modules(num_chars: int) -> list[str]:
    """Modules of the standard library in a random order, as many as have so many characters."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(
        path for path in root.rglob("*.py") if not SKIPPED & set(path.relative_to(root).parts)
    )
    random.Random(SEED).shuffle(paths)
    modules: list[str] = []
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        # A table of a whole module would be most of a small corpus.
        if text.strip() and len(text) < 60_000:
            modules.append(text)
        if sum(map(len, modules)) >= num_chars:
            break
    return modules


def _quick(is_quick: bool, effort: Effort) -> Effort:
    """Enough to see that everything works."""
    if not is_quick:
        return effort
    return replace(
        effort,
        teacher_epochs=min(effort.teacher_epochs, 2),
        supernet_epochs=min(effort.supernet_epochs, 1),
        distill_epochs=min(effort.distill_epochs, 1),
        race_steps=4,
        search_rows=64,
        population=8,
        generations=2,
    )
