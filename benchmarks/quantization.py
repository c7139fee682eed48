"""What fewer bits cost MiniLM, and what they buy: files of its vectors, beside its own in fp32.

Every file answers the test split of the movie-review sentences. A logistic regression on vectors
of the training split in fp32 tells what those answers are worth to a task. Files are timed in
turns, in ONNX Runtime on one thread: medians and tenths, and their ratios to fp32.

    python -m benchmarks.quantization [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks.common import MINILM, report_result
from benchmarks.movie_supernet import read_rows
from examples.movie_reviews.prepare import model_folder
from search.compress.configs import QuantizeConfig
from search.compress.distill import TaskData
from search.compress.network import Compressed, StageData
from search.compress.quantize import quantize
from search.export.formats import FORMATS, FormatName
from search.export.package import export_onnx
from search.export.running import OnnxNetwork, answers_of
from search.export.writers import Subject, export
from search.model.importing import import_model
from search.model.transformer import Batch, ElasticTransformer
from search.training.batches import TokenRows
from search.training.encoding import with_vectors
from search.training.evaluate import predict
from search.training.sensitivity import by_harm, harms
from search.training.teacher import LiveTeacher

SHAPE = replace(MINILM, task="sentence-embedding", num_labels=0)
SEED = 0
STATE = Path(".snugnet/quantization")
LENGTHS = (16, 64, 128)
ROUNDS = 300
SENSITIVITY_ROWS = 256
INTEGER_ROWS = 400  # six a second
WRITTEN: tuple[FormatName, ...] = ("onnx-int8-static", "onnx-int4")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.quantization", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sentences; keeps nothing")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    report_result("quantization", _figures(is_quick=chosen.quick), keep=not chosen.quick)


@dataclass(frozen=True, slots=True)
class _Judge:
    """Vectors in fp32, and what was learnt on such: the labels are those of `rows`."""

    rows: TokenRows
    exact: Tensor
    classifier: LogisticRegression

    def __call__(self, vectors: Tensor) -> dict[str, float]:
        """`lost` in points of accuracy, with twice its standard error (a paired difference)."""
        count = len(vectors)
        labels = self.rows.labels[:count].numpy()
        exact = self.classifier.predict(self.exact[:count].numpy())
        found = self.classifier.predict(vectors.numpy())
        lost = torch.tensor(exact == labels).double() - torch.tensor(found == labels).double()
        cosines = F.cosine_similarity(vectors, self.exact[:count])
        return {
            "rows": count,
            "cosine": float(cosines.mean()),
            "cosine_p1": float(cosines.quantile(0.01)),
            "accuracy": float((found == labels).mean()),
            "lost": 100 * float(lost.mean()),
            "lost_2se": 200 * float(lost.std() / count**0.5),
            "same_label": float((found == exact).mean()),
        }


def _figures(*, is_quick: bool) -> dict[str, Any]:
    train, test = _rows(1000 if is_quick else 10**6)
    model = import_model(model_folder(), SHAPE, SEED).eval()
    known = with_vectors(train, model)
    classifier = LogisticRegression(max_iter=1000).fit(known.labels.numpy(), train.labels.numpy())
    judge = _Judge(test, predict(model, test), classifier)
    sensitive = known.spread(SENSITIVITY_ROWS)
    with tempfile.TemporaryDirectory() as folder:
        files = _files(model, known, with_vectors(test, model), Path(folder))
        return {
            "sentences": {"train": len(train), "test": len(test)},
            "harm_by_layer": harms(model, model.sizes, sensitive),
            "file_bytes": {name: path.stat().st_size for name, path in files.items()},
            "quality": {
                name: judge(answers_of(OnnxNetwork(path), test)) for name, path in files.items()
            },
            "quality_by_integers": judge(_by_integers(model, known, test)),
            "latency": {length: _timed(files, length) for length in LENGTHS},
        }


def _rows(most: int) -> tuple[TokenRows, TokenRows]:
    rows = read_rows(STATE)
    train, test = rows["train"].spread(most), rows["test"].spread(most)
    assert isinstance(train, TokenRows)
    assert isinstance(test, TokenRows)
    return train, test


def _files(
    model: ElasticTransformer, train: TokenRows, test: TokenRows, folder: Path
) -> dict[str, Path]:
    """By name: fp32, dynamic int8, the same with its most sensitive layers in fp32, the others."""
    worst = by_harm(model, model.sizes, train.spread(SENSITIVITY_ROWS))
    int8 = model.sizes.with_precision("int8")
    subnets = {"fp32": model.sizes, "int8": int8} | {
        f"int8, {count} layers in fp32": replace(int8, float_layers=tuple(sorted(worst[:count])))
        for count in (1, 2, 3)
    }
    found = {
        name: export_onnx(model, subnet, folder / f"{place}.onnx")
        for place, (name, subnet) in enumerate(subnets.items())
    }
    subject = Subject(model=model, calibration=train, judged=test.spread(128))
    for name in WRITTEN:
        export(name, subject, folder)
        found[name] = folder / FORMATS[name].file
    return found


def _by_integers(model: ElasticTransformer, train: TokenRows, test: TokenRows) -> Tensor:
    """Vectors of the first of the rows, without floats: simulated."""
    task = TaskData(train, test, LiveTeacher(model), 32)
    network = quantize(
        Compressed.whole(model),
        QuantizeConfig(format="int8-integer"),
        StageData(task=task, seq_len=max(LENGTHS)),
    )
    with network.running() as running:
        return predict(running, test.select(range(min(INTEGER_ROWS, len(test)))))


def _timed(files: Mapping[str, Path], length: int) -> dict[str, dict[str, float]]:
    """ms of one text of as many tokens, and as a share of fp32's."""
    networks = {name: OnnxNetwork(path) for name, path in files.items()}
    ids = torch.arange(1000, 1000 + length)[None]
    batch = Batch(ids, torch.ones_like(ids))
    samples: dict[str, list[float]] = {name: [] for name in files}
    for network in networks.values():
        network(batch)
    for _ in range(ROUNDS):
        for name, network in networks.items():
            begun = time.perf_counter()
            network(batch)
            samples[name].append(1000 * (time.perf_counter() - begun))
    found = {name: statistics.quantiles(values, n=10) for name, values in samples.items()}
    # A machine that others use as well adds to the median what it does not to the tenth.
    return {
        name: {
            "ms": deciles[4],
            "ratio": deciles[4] / found["fp32"][4],
            "ms_p10": deciles[0],
            "ratio_p10": deciles[0] / found["fp32"][0],
        }
        for name, deciles in found.items()
    }


if __name__ == "__main__":
    main()
