"""What a vocabulary of the words in use is worth: MiniLM trimmed to the movie-review sentences.

Pieces come from the training split; what fell away, and what that does to the vectors, is counted
on the test split, whose texts are tokenized anew by the trimmed tokenizer.

    python -m benchmarks.vocabulary [--quick]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import MINILM, report_result
from examples.movie_reviews.prepare import model_folder, prepare_data
from search.compress.configs import TrimVocabularyConfig
from search.compress.distill import TaskData
from search.compress.network import Compressed, StageData
from search.compress.pieces import Spec, trimmed_tokenizer
from search.compress.stages import apply_stage
from search.compress.vocabulary import fallen_share
from search.data.dataset import Dataset, read_dataset
from search.data.splits import Splits
from search.export.package import export_onnx
from search.export.parity import check_parity
from search.model.checkpoint import MAX_TOKENIZER_BYTES, TOKENIZER_FILE, read_json
from search.model.importing import import_model
from search.model.transformer import ElasticTransformer
from search.training.batches import TokenRows
from search.training.encoding import encode_splits
from search.training.evaluate import predict
from search.training.teacher import LiveTeacher

SHAPE = replace(MINILM, task="sentence-embedding", num_labels=0)
SEED = 0
MAX_SEQ_LEN = 64
STATE = Path(".snugnet/vocabulary")
PARITY_ROWS = 32
MIN_COUNTS = (1, 2, 5)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.vocabulary", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sentences; keeps nothing")
    chosen = parser.parse_args(arguments)
    report_result("vocabulary", _figures(is_quick=chosen.quick), keep=not chosen.quick)


def _figures(*, is_quick: bool) -> dict[str, Any]:
    data = read_dataset(prepare_data(STATE), task="sentence-embedding")
    splits = data.split(SEED)
    if is_quick:
        splits = replace(splits, train=splits.train[:1000], test=splits.test[:100])
    teacher = import_model(model_folder(), SHAPE, SEED).eval()
    rows = _encoded(data, splits, model_folder())
    model = _Whole(data, splits, teacher, rows, predict(teacher, rows["test"]))
    with tempfile.TemporaryDirectory() as folder:
        whole = _files(teacher, rows["test"], Path(folder))
        trimmed = [_trimmed(model, least, Path(folder) / str(least)) for least in MIN_COUNTS]
    return {
        "sentences": {name: len(part) for name, part in rows.items()},
        "tokens": {name: len(part.tokens) for name, part in rows.items()},
        "whole": {"pieces": SHAPE.vocab_size, **whole},
        "trimmed": trimmed,
    }


@dataclass(frozen=True, slots=True)
class _Whole:
    """The model as it came, and its `vectors` of the test split."""

    data: Dataset
    splits: Splits
    teacher: ElasticTransformer
    rows: dict[str, TokenRows]
    vectors: Tensor


def _trimmed(whole: _Whole, min_count: int, folder: Path) -> dict[str, Any]:
    spec = read_json(model_folder() / TOKENIZER_FILE, MAX_TOKENIZER_BYTES)
    train, test = whole.rows["train"], whole.rows["test"]
    task = TaskData(train, test, LiveTeacher(whole.teacher), batch_size=32)
    data = StageData(task=task, seq_len=MAX_SEQ_LEN, seed=SEED, tokenizer=spec)
    config = TrimVocabularyConfig(min_count=min_count)
    network = apply_stage(Compressed.whole(whole.teacher), config, data)
    kept = network.kept_tokens
    assert kept is not None
    _write_tokenizer(spec, kept, folder)
    reread = _encoded(whole.data, whole.splits, folder)["test"]
    by_id = data.read_by(network).task.validation
    is_changed = _is_changed(test, kept)
    return {
        "min_count": min_count,
        "pieces": len(kept),
        **_files(network.model, reread, folder),
        "fallen_share": fallen_share(test, kept),
        "changed_sentences": float(is_changed.float().mean()),
        "tokens_after": len(reread.tokens),
        "cosines": _compared(predict(network.model, reread), whole.vectors, is_changed),
        "cosines_by_id": _compared(predict(network.model, by_id), whole.vectors, is_changed),
    }


def _encoded(data: Dataset, splits: Splits, folder: Path) -> dict[str, TokenRows]:
    """The training and the test split, as the folder's tokenizer has them."""
    splits = replace(splits, search=splits.search[:1], validation=splits.validation[:1])
    found = {}
    for name, rows in encode_splits(data, splits, folder, SHAPE, max_seq_len=MAX_SEQ_LEN):
        assert isinstance(rows, TokenRows)
        found[name] = rows
    return {name: found[name] for name in ("train", "test")}


def _write_tokenizer(spec: Spec, kept: Tensor, folder: Path) -> None:
    folder.mkdir(parents=True)
    text = json.dumps(trimmed_tokenizer(spec, kept.tolist()), ensure_ascii=False)
    (folder / TOKENIZER_FILE).write_text(text, encoding="utf-8")


def _files(model: ElasticTransformer, rows: TokenRows, folder: Path) -> dict[str, Any]:
    """Bytes on paper and of the exported file, which has to answer as the network does."""
    folder.mkdir(parents=True, exist_ok=True)
    network = Compressed.whole(model)
    figures: dict[str, Any] = {"params": network.num_params}
    for precision in ("fp32", "int8"):
        subnet = network.subnet.with_precision(precision)
        path = export_onnx(model, subnet, folder / f"{precision}.onnx")
        sample = rows.spread(PARITY_ROWS)
        expected = predict(model, sample, subnet)
        parity = check_parity(path, sample, expected, model.shape, precision=precision)
        figures[precision] = {
            "size_bytes": replace(network, subnet=subnet).size_bytes,
            "file_bytes": path.stat().st_size,
            "agreement": parity.agreement,
            "max_error": parity.max_error,
        }
        path.unlink()
    return figures


def _is_changed(rows: TokenRows, kept: Tensor) -> Tensor:
    """(rows,): whether a token of the sentence fell away."""
    has_fallen = (~torch.isin(rows.tokens.long(), kept)).long()
    sums = torch.cat([torch.zeros(1, dtype=torch.int64), has_fallen.cumsum(0)])
    return sums[rows.offsets].diff() > 0


def _compared(found: Tensor, expected: Tensor, is_changed: Tensor) -> dict[str, float]:
    """Cosines of the sentences' vectors with those of the whole model."""
    cosines = torch.nn.functional.cosine_similarity(found, expected)
    return {
        "mean": float(cosines.mean()),
        "mean_of_changed": float(cosines[is_changed].mean()),
        "p1": float(cosines.quantile(0.01)),
        "least_of_unchanged": float(cosines[~is_changed].min()) if not is_changed.all() else 1.0,
    }


if __name__ == "__main__":
    main()
