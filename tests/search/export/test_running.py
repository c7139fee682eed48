from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from search.export.package import export_onnx
from search.export.parity import check_parity
from search.export.running import evaluate_file, file_answers
from search.training.batches import TokenRows
from search.training.evaluate import evaluate, predict, quality_of
from search.training.image_rows import ImageRows
from search.training.rows import Rows
from search.training.tasks import IGNORED
from tests.search.families import SHAPES, network_of

BERT = SHAPES["bert"]
CASES = {
    "text": BERT,
    "pairs": replace(BERT, task="pair-classification"),
    "tags": replace(BERT, task="token-classification"),
    "embedding": replace(BERT, task="sentence-embedding", num_labels=0),
    "gpt2": SHAPES["gpt2"],
    "llama": SHAPES["llama"],
    "vit": SHAPES["vit"],
}


def rows_for(case: str) -> Rows:
    generator = torch.Generator().manual_seed(0)
    shape = CASES[case]
    if shape.reads_images:
        pixels = torch.randint(0, 256, (6, 1, 8, 8), generator=generator).byte()
        half = torch.tensor([0.5])
        return ImageRows(pixels, torch.arange(6) % 3, half, half / 2, shape.max_seq_len)
    lengths = torch.randint(3, 12, (6,), generator=generator)
    tokens = torch.randint(1, 64, (int(lengths.sum()),), generator=generator).int()
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    if shape.answers_per_token:
        labels = torch.randint(0, shape.num_labels, tokens.shape, generator=generator)
        labels[::4] = IGNORED
        return TokenRows(tokens, offsets, labels, has_token_labels=True)
    types = (torch.arange(len(tokens)) % 2).to(torch.int8) if case == "pairs" else None
    labels = torch.randn(6, 32, generator=generator) if case == "embedding" else offsets[1:] % 3
    return TokenRows(tokens, offsets, labels, types)


@pytest.mark.parametrize("case", list(CASES))
def test_a_file_answers_and_is_judged_as_its_network(case: str, tmp_path: Path) -> None:
    shape, rows = CASES[case], rows_for(case)
    model = network_of(shape)
    path = export_onnx(model, model.sizes, tmp_path / "model.onnx")
    expected = predict(model, rows)
    torch.testing.assert_close(file_answers(path, rows), expected, atol=1e-3, rtol=1e-3)
    parity = check_parity(path, rows, expected, shape, precision="fp32")
    assert parity.agreement == pytest.approx(1.0)
    mine, theirs = quality_of(evaluate_file(path, rows, shape), shape), evaluate(model, rows)
    assert mine.value == pytest.approx(theirs.value, abs=1e-4)
    assert mine.loss == pytest.approx(theirs.loss, abs=1e-4)
    assert mine.num_rows == 6
