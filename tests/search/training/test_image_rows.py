from __future__ import annotations

from pathlib import Path

import pytest
import torch

from search.training.image_rows import ImageRows


@pytest.fixture
def rows() -> ImageRows:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (10, 3, 8, 8), generator=generator).byte()
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.1, 0.3])
    return ImageRows(pixels, torch.arange(10) % 4, mean, std, num_tokens=5)


def test_a_batch_is_normalised_by_channel(rows: ImageRows) -> None:
    batch = rows.batch([4, 1])
    assert batch.inputs.shape == (2, 3, 8, 8)
    for channel, (mean, std) in enumerate([(0.5, 0.2), (0.4, 0.1), (0.3, 0.3)]):
        value = (int(rows.pixels[4, channel, 2, 3]) / 255 - mean) / std
        assert float(batch.inputs[0, channel, 2, 3]) == pytest.approx(value, abs=1e-5)
    assert batch.attention_mask.tolist() == [[1] * 5] * 2
    assert rows.lengths.tolist() == [5] * 10


def test_rows_survive_a_file(rows: ImageRows, tmp_path: Path) -> None:
    rows.save(tmp_path / "rows.safetensors")
    again = ImageRows.load(tmp_path / "rows.safetensors")
    assert torch.equal(again.batch([0, 9]).inputs, rows.batch([0, 9]).inputs)
    assert again.batch([0]).attention_mask.shape == (1, 5)
    assert again.labels_of([3, 9]).tolist() == [3, 1]


def test_a_sample_is_spread_over_the_rows(rows: ImageRows) -> None:
    assert rows.spread(5).labels_of(range(5)).tolist() == [0, 2, 0, 2, 0]
    assert rows.spread(50) is rows
    assert torch.equal(rows.select([7]).pixels[0], rows.pixels[7])
