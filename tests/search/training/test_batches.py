from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from search.training.batches import TokenRows, epoch_order, ordered_batches
from search.training.tasks import IGNORED
from tests.search.small import task


def test_an_epoch_has_every_row_once_and_another_order_each_time() -> None:
    rows = task(50)
    first, second = (epoch_order(rows.lengths, 8, seed=1, epoch=epoch) for epoch in (0, 1))
    assert sorted(i for batch in first for i in batch) == list(range(50))
    assert first != second
    assert first == epoch_order(rows.lengths, 8, seed=1, epoch=0)


def test_rows_of_a_batch_are_of_similar_length() -> None:
    lengths = torch.randint(1, 60, (640,), generator=torch.Generator().manual_seed(0))
    batches = epoch_order(lengths, 16, seed=0, epoch=0)
    spread = [int(lengths[batch].max() - lengths[batch].min()) for batch in batches]
    assert sum(spread) / len(spread) < 6


def test_a_batch_is_padded_and_masked() -> None:
    rows = task(8)
    batch = rows.batch([0, 3])
    lengths = rows.lengths[[0, 3]]
    assert batch.inputs.shape == (2, int(lengths.max()))
    assert batch.attention_mask.sum(1).tolist() == lengths.tolist()
    assert torch.all(batch.inputs[batch.attention_mask == 0] == 0)


@pytest.fixture(params=["labels", "pairs", "token labels", "vectors"])
def rows(request: pytest.FixtureRequest) -> TokenRows:
    plain = task(12)
    types = (torch.arange(len(plain.tokens)) % 2).to(torch.int8)
    per_token = torch.arange(len(plain.tokens)) % 5
    return {
        "labels": plain,
        "pairs": replace(plain, token_types=types),
        "token labels": replace(plain, labels=per_token, has_token_labels=True),
        "vectors": replace(plain, labels=torch.randn(12, 7)),
    }[request.param]


def test_rows_survive_a_file(rows: TokenRows, tmp_path: Path) -> None:
    rows.save(tmp_path / "rows.safetensors")
    again = TokenRows.load(tmp_path / "rows.safetensors")
    assert again.has_token_labels == rows.has_token_labels
    assert (again.token_types is None) == (rows.token_types is None)
    for places in ([3], [0, 11, 5]):
        for mine, theirs in zip(again.batch(places), rows.batch(places), strict=True):
            assert mine is theirs is None or torch.equal(mine, theirs)
        assert torch.equal(again.labels_of(places), rows.labels_of(places))


def test_chosen_rows_are_what_they_were(rows: TokenRows) -> None:
    places = [7, 2, 9]
    chosen = rows.select(places)
    assert len(chosen) == 3
    for mine, theirs in zip(chosen.batch([0, 1, 2]), rows.batch(places), strict=True):
        assert mine is theirs is None or torch.equal(mine, theirs)
    assert torch.equal(chosen.labels_of([0, 1, 2]), rows.labels_of(places))


def test_labels_of_tokens_are_padded_like_the_batch() -> None:
    plain = task(8)
    rows = replace(plain, labels=torch.arange(len(plain.tokens)), has_token_labels=True)
    batch, labels = rows.batch([0, 3]), rows.labels_of([0, 3])
    assert labels.shape == batch.inputs.shape
    assert torch.equal(labels != IGNORED, batch.attention_mask.bool())
    assert labels[1, 0] == rows.offsets[3]


def test_a_smaller_sample_is_spread_over_sorted_data() -> None:
    rows = task(40)
    by_label = rows.select(sorted(range(40), key=lambda i: int(rows.labels[i])))
    assert by_label.spread(10).labels.tolist() == [0] * 5 + [1] * 5
    assert by_label.spread(100) is by_label


def test_evaluation_sees_every_row_once() -> None:
    rows = task(21)
    places = [i for part, _ in ordered_batches(rows, 4) for i in part]
    assert sorted(places) == list(range(21))
