"""What a smaller word table is worth: MiniLM on the movie-review sentences, without training.

Its vocabulary is trimmed to the pieces of the training split, its table's rank lowered, or both.
What fell away, and what that does to the vectors, is counted on the test split, whose texts are
tokenized anew by the trimmed tokenizer.

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
from search.compress.configs import FactorizeConfig, TrimVocabularyConfig
from search.compress.distill import TaskData
from search.compress.network import Compressed, StageData
from search.compress.pieces import Spec, trimmed_tokenizer
from search.compress.recipe import StageConfig
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
STAGES: tuple[tuple[StageConfig, ...], ...] = (
    (TrimVocabularyConfig(min_count=1),),
    (TrimVocabularyConfig(min_count=2),),
    (TrimVocabularyConfig(min_count=5),),
    (FactorizeConfig(rank=0.5),),
    (FactorizeConfig(rank=2 / 3),),
    (TrimVocabularyConfig(min_count=1), FactorizeConfig(rank=0.5)),
)


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
        smaller = [_smaller(model, s, Path(folder) / str(i)) for i, s in enumerate(STAGES)]
    return {
        "sentences": {name: len(part) for name, part in rows.items()},
        "tokens": {name: len(part.tokens) for name, part in rows.items()},
        "whole": {"pieces": SHAPE.vocab_size, **whole},
        "smaller": smaller,
    }


@dataclass(frozen=True, slots=True)
class _Whole:
    """The model as it came, and its `vectors` of the test split."""

    data: Dataset
    splits: Splits
    teacher: ElasticTransformer
    rows: dict[str, TokenRows]
    vectors: Tensor


def _smaller(whole: _Whole, stages: Sequence[StageConfig], folder: Path) -> dict[str, Any]:
    """Figures of the model after the stages."""
    spec = read_json(model_folder() / TOKENIZER_FILE, MAX_TOKENIZER_BYTES)
    train, test = whole.rows["train"], whole.rows["test"]
    task = TaskData(train, test, LiveTeacher(whole.teacher), batch_size=32)
    data = StageData(task=task, seq_len=MAX_SEQ_LEN, seed=SEED, tokenizer=spec)
    network = Compressed.whole(whole.teacher)
    for stage in stages:
        network = apply_stage(network, stage, data)
    rows, figures = test, dict[str, Any]()
    if network.kept_tokens is not None:
        rows, figures = _retokenized(whole, network, data, folder)
    return {
        "stages": [stage.to_dict() for stage in stages],
        "pieces": network.model.shape.vocab_size,
        **_files(network.model, rows, folder),
        "cosines": _compared(predict(network.model, rows), whole.vectors),
        **figures,
    }


def _retokenized(
    whole: _Whole, network: Compressed, data: StageData, folder: Path
) -> tuple[TokenRows, dict[str, Any]]:
    """The test split as the trimmed tokenizer has it, and what that differs in."""
    kept, test = network.kept_tokens, whole.rows["test"]
    assert kept is not None
    assert data.tokenizer is not None
    _write_tokenizer(data.tokenizer, kept, folder)
    rows = _encoded(whole.data, whole.splits, folder)["test"]
    by_id = data.read_by(network).task.validation
    is_changed = _is_changed(test, kept)
    cosines = _cosines(predict(network.model, rows), whole.vectors)
    return rows, {
        "fallen_share": fallen_share(test, kept),
        "changed_sentences": float(is_changed.float().mean()),
        "tokens_after": len(rows.tokens),
        "mean_cosine_of_changed": float(cosines[is_changed].mean()),
        "least_cosine_of_unchanged": min(cosines[~is_changed].tolist(), default=None),
        "cosines_by_id": _compared(predict(network.model, by_id), whole.vectors),
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


def _cosines(found: Tensor, expected: Tensor) -> Tensor:
    """(rows,): of the sentences' vectors with those of the whole model."""
    return torch.nn.functional.cosine_similarity(found, expected)


def _compared(found: Tensor, expected: Tensor) -> dict[str, float]:
    cosines = _cosines(found, expected)
    return {"mean": float(cosines.mean()), "p1": float(cosines.quantile(0.01))}


if __name__ == "__main__":
    main()
