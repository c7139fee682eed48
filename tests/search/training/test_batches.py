from __future__ import annotations

from pathlib import Path

import torch

from search.training.batches import TokenRows, epoch_order, ordered_batches
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


def test_rows_survive_a_file(tmp_path: Path) -> None:
    rows = task(12)
    rows.save(tmp_path / "rows.safetensors")
    again = TokenRows.load(tmp_path / "rows.safetensors")
    assert all(torch.equal(getattr(again, n), getattr(rows, n)) for n in rows.__slots__)


def test_a_smaller_sample_is_spread_over_sorted_data() -> None:
    rows = task(40)
    by_label = rows.select(sorted(range(40), key=lambda i: int(rows.labels[i])))
    assert by_label.spread(10).labels.tolist() == [0] * 5 + [1] * 5
    assert by_label.spread(100) is by_label


def test_evaluation_sees_every_row_once() -> None:
    rows = task(21)
    places = [i for part, _ in ordered_batches(rows, 4) for i in part]
    assert sorted(places) == list(range(21))
