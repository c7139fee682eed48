"""Compressed networks as files: written, compared with the network, weighed, judged and timed."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.equal_terms import Floats, paired_difference
from benchmarks.exported import ExportedNetwork, measure_session
from benchmarks.kept import Kept
from benchmarks.pipeline import SEED
from benchmarks.subjects import Subject
from search.compress.files import write_file
from search.compress.network import Compressed
from search.compress.suitability import FILE_FORMATS
from search.compress.vocabulary import with_vocabulary
from search.export.package import export_onnx
from search.export.parity import compare
from search.export.running import evaluate_file, file_answers
from search.space import SubnetConfig
from search.training.evaluate import few, predict
from search.training.tasks import task_of

PARITY_ROWS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """One network's files and what they are like.

    Attributes:
        timed: the file of the workload: `file` itself but for a decoder.
        scores, counts: of each row, and its answers, by split.
        figures: plain data, see `deliver`.
    """

    name: str
    subnet: SubnetConfig
    vocab_size: int
    file: Path
    timed: Path
    scores: Mapping[str, Floats]
    counts: Mapping[str, Floats]
    figures: dict[str, Any]

    def as_exported(self, key: str) -> ExportedNetwork:
        return ExportedNetwork(
            name=key,
            subnet=self.subnet,
            file=self.file,
            timed=self.timed,
            agreement=self.figures["agreement"],
        )


def deliver(
    name: str, network: Compressed, subject: Subject, folder: Path, *, splits: Sequence[str]
) -> Delivered:
    """Writes into `folder` and judges, or reads what an earlier run did there.

    Its figures: `file_bytes`, `gzip_bytes`, `paper_bytes` (of the weights as their format stores
    them, whether or not a runtime reads that), `params`, `zeros`, `flops`, `agreement` with the
    network.
    """
    file, kept = folder / "model.onnx", Kept(folder)
    figures = kept.figures("figures")
    if figures is None:
        folder.mkdir(parents=True, exist_ok=True)
        _write(network, file)
        figures = _figures(network, subject, file)
        kept.save_figures("figures", figures)
    judged = {split: _judged(network, subject, file, kept, split) for split in splits}
    return Delivered(
        name=name,
        subnet=network.subnet,
        vocab_size=network.model.shape.vocab_size,
        file=file,
        timed=_timed(network, subject, file),
        scores={split: np.array(found["score"]) for split, found in judged.items()},
        counts={split: np.array(found["count"]) for split, found in judged.items()},
        figures=figures,
    )


def _judged(
    network: Compressed, subject: Subject, file: Path, kept: Kept, split: str
) -> dict[str, Any]:
    found = kept.figures(split)
    if found is None:
        scores = evaluate_file(file, subject.rows_for(network, split), network.model.shape)
        found = {"score": scores.score.tolist(), "count": scores.count.tolist()}
        kept.save_figures(split, found)
    return found


@dataclass(frozen=True, slots=True)
class Timed:
    """p50 in ms of each file by name, and how quiet the session was."""

    latencies_ms: Mapping[str, float]
    session: dict[str, Any]


def time_all(
    delivered: Sequence[Delivered], subject: Subject, others: Sequence[ExportedNetwork] = ()
) -> Timed:
    """All in one session on one thread."""
    keys = {f"n{place}": one.name for place, one in enumerate(delivered)}
    files = [one.as_exported(key) for key, one in zip(keys, delivered, strict=True)]
    # Inputs are drawn from the vocabulary that all of them have.
    sizes = [one.vocab_size for one in delivered]
    shape = subject.shape
    if not shape.reads_images and min(sizes) < shape.vocab_size:
        shape = with_vocabulary(shape, min(sizes))
    result = measure_session([*files, *others], shape, subject.job.workload, seed=SEED)
    summary = result.session
    return Timed(
        {keys.get(m.key, m.key): m.median_ms for m in result.measurements},
        {"is_noisy": summary.noisy, "noise_floor": summary.noise_floor},
    )


def compared(one: Delivered, original: Delivered, subject: Subject, split: str) -> dict[str, Any]:
    """Quality on a split, and how far it is from the original's on the same rows.

    A score is of a row's text, however many tokens a network's vocabulary makes of it: all are
    divided by the original's answers.
    """
    task, counts = task_of(subject.shape), original.counts[split]
    quality = float(one.scores[split].sum() / counts.sum())
    base = float(original.scores[split].sum() / counts.sum())
    return {
        "quality": quality,
        "shown": task.show(quality),
        "kept": task.kept(quality, base),
        "against_original": paired_difference(one.scores[split], original.scores[split], counts),
    }


# --- files --------------------------------------------------------------------------------------


def _write(network: Compressed, path: Path, phase: str = "encode") -> None:
    """What a runtime reads; weights in a format that no file has stand in it as they round."""
    if network.format in FILE_FORMATS:
        write_file(network, path, phase=phase)
    else:
        export_onnx(network.model, network.subnet, path, phase=phase)


def _timed(network: Compressed, subject: Subject, file: Path) -> Path:
    phase = subject.job.workload.phase
    if phase == "encode":
        return file
    path = file.with_name(f"{phase}.onnx")
    if not path.is_file():
        _write(network, path, phase)
    return path


def _figures(network: Compressed, subject: Subject, file: Path) -> dict[str, Any]:
    shape, sizes = network.model.shape, network.subnet.renumbered()
    rows = few(subject.rows_for(network, "validation"), shape, PARITY_ROWS)
    expected = predict(network.model, rows, sizes)
    parity = compare(file_answers(file, rows), expected, shape, num_rows=len(rows))
    return {
        "file_bytes": file.stat().st_size,
        "gzip_bytes": len(gzip.compress(file.read_bytes(), 6)),
        "paper_bytes": network.size_bytes,
        "params": network.num_params,
        "zeros": network.num_zeros,
        "flops": network.flops(subject.data.seq_len),
        "precision": network.format or network.subnet.precision,
        "layers": list(network.subnet.layers),
        "agreement": parity.agreement,
        "max_error": parity.max_error,
    }
