from __future__ import annotations

import pytest
import torch

from search.compress.rounding import FORMATS, GROUP, round_, stored_bytes
from search.model.linears import layer_matrix_names
from tests.search import families
from tests.search.compress.data import network


def matrix(rows: int = 6, columns: int = 70) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list(FORMATS))
def test_rounding_again_changes_nothing_or_next_to_nothing(name: str) -> None:
    once = FORMATS[name].round(matrix())
    torch.testing.assert_close(FORMATS[name].round(once), once, atol=1e-5, rtol=1e-5)
    assert not torch.equal(once, matrix())


def test_a_group_of_int4_has_at_most_sixteen_values_and_keeps_its_largest() -> None:
    weight = matrix()
    rounded = FORMATS["int4"].round(weight)
    for row, found in zip(weight, rounded, strict=True):
        for start in range(0, len(row), GROUP):
            group, kept = row[start : start + GROUP], found[start : start + GROUP]
            assert len(kept.unique()) <= 16
            place = group.abs().argmax()
            assert float(kept[place]) == pytest.approx(float(group[place]))
            assert float((kept - group).abs().max()) <= float(group.abs().max()) / 8 + 1e-6


def test_rows_of_one_and_two_bits_have_a_scale_each() -> None:
    assert all(len(row.unique()) == 2 for row in FORMATS["binary"].round(matrix()))
    ternary = FORMATS["ternary"].round(matrix())
    assert all(len(row.unique()) == 3 for row in ternary)
    errors = {name: float((FORMATS[name].round(matrix()) - matrix()).norm()) for name in FORMATS}
    assert errors["fp16"] < errors["bf16"] < errors["int4"] < errors["ternary"] < errors["binary"]


def test_bytes_are_those_of_the_bits_and_their_scales() -> None:
    model = network().model
    parameters = dict(model.named_parameters())
    matrices = [parameters[name] for name in layer_matrix_names(model)]
    num_matrix = sum(m.numel() for m in matrices)
    num_all = sum(p.numel() for p in parameters.values())
    assert stored_bytes(model, "fp16") == 2 * num_all
    scales = 4 * sum(len(m) for m in matrices)
    rest = 4 * (num_all - num_matrix)
    tables = [parameters[f"embeddings.{name}.weight"] for name in ("word", "position")]
    rest -= sum(3 * t.numel() - 4 * len(t) for t in tables)  # a byte a number, a scale a row
    assert stored_bytes(model, "binary") == num_matrix // 8 + scales + rest
    # A scale of four bytes for 32 weights of half a byte each.
    assert stored_bytes(model, "int4") == num_matrix * 5 // 8 + rest


def test_tables_take_a_byte_a_number_unless_they_are_the_head() -> None:
    for family, are_rounded in (("bert", True), ("gpt2", False)):
        model = families.network_of(families.SHAPES[family])
        table = model.embeddings.word.weight.detach()
        before = table.clone()
        round_(model, "int4")
        assert torch.equal(table, before) != are_rounded
        torch.testing.assert_close(table, before, atol=0.01, rtol=0)


@pytest.mark.parametrize("name", ["binary", "bf16"])
def test_a_network_is_rounded_where_the_format_says(name: str) -> None:
    model = network().model
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    round_(model, name)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed >= set(layer_matrix_names(model))
    assert ("layers.0.attn.norm.weight" in changed) == FORMATS[name].rounds_all
