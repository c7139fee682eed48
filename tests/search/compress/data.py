"""A small teacher that has learnt a task, and what stages are given to work with."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import torch

from search.compress.distill import TaskData
from search.compress.network import Compressed, StageData, copied
from search.export.package import export_onnx
from search.export.parity import check_parity
from search.model.transformer import ElasticTransformer
from search.training.batches import TokenRows
from search.training.evaluate import predict
from search.training.loop import TrainingRun
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.supernet import finetuning_losses
from search.training.teacher import teacher_of
from tests.search import small

BATCH_SIZE = 32
SEQ_LEN = 12


def ordered(num_rows: int = 256, seed: int = 0) -> TokenRows:
    """The label says whether token 1 or token 2 comes first: no bag of words tells it."""
    rng = random.Random(seed)
    rows, labels = [], []
    for i in range(num_rows):
        row = [rng.randrange(3, small.SHAPE.vocab_size) for _ in range(rng.randint(2, 9))]
        first, second = sorted(rng.sample(range(len(row) + 2), 2))
        row.insert(first, 1 + i % 2)
        row.insert(second, 2 - i % 2)
        rows.append(row)
        labels.append(i % 2)
    lengths = torch.tensor([0, *map(len, rows)])
    tokens = torch.tensor([token for row in rows for token in row], dtype=torch.int32)
    return TokenRows(tokens, lengths.cumsum(0), torch.tensor(labels))


@lru_cache(maxsize=1)
def teacher() -> ElasticTransformer:
    """It answers nearly all of `ordered` rightly; never changed by a test."""
    torch.manual_seed(0)
    model = ElasticTransformer(small.SHAPE, dropout=0.0)
    order = BatchOrder(ordered(1024), BATCH_SIZE, 0)
    run = TrainingRun(model, Schedule(learning_rate=3e-3, total_steps=400), seed=0)
    run.advance(finetuning_losses(model, order), should_stop=lambda: False)
    return model.eval()


def spoilt(*layers: int) -> ElasticTransformer:
    """The teacher, answering the same in fp32: one number that a layer's last matrices read is
    large and always the same, so that int8 has no steps left for the others."""
    model = copied(teacher()).eval()
    with torch.no_grad():
        for layer in layers:
            attn, ffn = model.layers[layer].attn, model.layers[layer].ffn
            for made_by, read_by in ((attn.v, attn.out), (ffn.up, ffn.down)):
                made_by.weight[0], made_by.bias[0] = 0.0, 4000.0
                read_by.bias -= 4000.0 * read_by.weight[:, 0]
    return model


def network() -> Compressed:
    return Compressed.whole(copied(teacher()))


@lru_cache(maxsize=1)
def stage_data() -> StageData:
    rows = ordered(1024)
    task = TaskData(rows, ordered(256, seed=1), teacher_of(teacher(), rows), BATCH_SIZE)
    return StageData(task=task, seq_len=SEQ_LEN, num_batches=4)


def assert_smaller_file_answers_alike(
    before: Compressed, after: Compressed, precision: str, folder: Path
) -> None:
    subnet = after.subnet.with_precision(precision)
    path = export_onnx(after.model, subnet, folder / "after.onnx")
    whole = export_onnx(before.model, subnet, folder / "before.onnx")
    rows = ordered(64)
    expected = predict(after.model, rows, subnet)
    parity = check_parity(path, rows, expected, after.model.shape, precision=precision)
    if precision == "fp32":
        assert parity.max_error < 1e-4
        assert path.stat().st_size < whole.stat().st_size
