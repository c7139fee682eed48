"""The table of a supernet: evaluated as if one by one, written and read back, checked for gaps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.subnet_table import Entry, SubnetTable, write_table
from benchmarks.subnet_table_build import evaluate_all
from search.genotypes import all_networks
from search.space import SearchSpace
from search.training.evaluate import predict
from tests.search.small import network, task

SPACE = SearchSpace(
    num_layers=(1, 2, 3),
    num_heads=(1, 4),
    ffn_dim=(16, 64),
    precision=("fp32", "int8"),
    layer_order=(2, 0, 1),
)
NETWORKS = [subnet for _, subnet in all_networks(SPACE)]


def entries() -> list[Entry]:
    return [
        Entry(subnet=subnet, num_right=place, num_rows=400, loss=round(0.5 + place / 1000, 3))
        for place, subnet in enumerate(NETWORKS)
    ]


def test_sharing_leading_layers_changes_no_answer() -> None:
    model, rows = network(), task(24)
    found = dict(evaluate_all(model, rows, NETWORKS))
    assert found.keys() == set(NETWORKS)
    for subnet in NETWORKS[::7]:
        torch.testing.assert_close(found[subnet], predict(model, rows, subnet))


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_table(path, entries())
    table = SubnetTable.load(path)
    assert list(table.entries) == entries()
    assert table[NETWORKS[5]].quality == 5 / 400
    assert table.space.num_networks == len(table) == len(NETWORKS)
    assert all(table.space.contains(subnet) for subnet in NETWORKS)


def test_a_table_with_a_gap_is_refused() -> None:
    with pytest.raises(ValueError, match=r"167 networks .* space of 168"):
        SubnetTable(entries()[:-1])
