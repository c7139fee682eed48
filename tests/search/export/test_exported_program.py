from __future__ import annotations

from pathlib import Path

import pytest
import torch

from search.export.errors import ExportFailed
from search.export.exported_program import ExportedNetwork, write_exported
from search.model.transformer import Batch
from tests.search.export.networks import rows_of, subnet_of
from tests.search.families import SHAPES


def cut(batch: Batch, rows: int, length: int) -> Batch:
    """The first rows, and of texts the first tokens."""
    if batch.inputs.dim() == 4:
        return Batch(batch.inputs[:rows], batch.attention_mask[:rows])
    return Batch(*(None if part is None else part[:rows, :length] for part in batch))


@pytest.mark.parametrize("name", [*SHAPES, "bert/pairs", "bert/tags", "bert/vectors"])
def test_a_file_equals_the_network_at_every_batch_and_length(name: str, tmp_path: Path) -> None:
    model = subnet_of(name, "uneven and narrow")
    network = ExportedNetwork(write_exported(model, tmp_path / "model.pt2"))
    for rows, length in ((1, 1), (1, 7), (3, 2), (4, 10)):
        given = cut(rows_of(model.shape), rows, length)
        with torch.no_grad():
            expected = model(given).logits
        torch.testing.assert_close(network(given), expected, atol=1e-6, rtol=1e-6)


def test_the_longest_input_is_the_model_s(tmp_path: Path) -> None:
    model = subnet_of("bert", "uneven")
    network = ExportedNetwork(write_exported(model, tmp_path / "model.pt2"))
    longest = torch.ones(1, model.shape.max_seq_len, dtype=torch.int64)
    assert network(Batch(longest, longest)).shape == (1, 3)
    beyond = torch.ones(1, model.shape.max_seq_len + 1, dtype=torch.int64)
    with pytest.raises(Exception, match=r"seq|size|shape|Guard"):
        network(Batch(beyond, beyond))


def test_the_network_that_is_written_stays_as_it_was(tmp_path: Path) -> None:
    model = subnet_of("bert", "uneven")
    write_exported(model.train(), tmp_path / "model.pt2")
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_file_that_is_none_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"not a network")
    with pytest.raises(ExportFailed, match=r"torch\.export: "):
        ExportedNetwork(tmp_path / "model.pt2")
