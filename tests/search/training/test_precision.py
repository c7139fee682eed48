"""Which precision trains: measured where it is left open, refused where nothing computes in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from search.errors import InvalidInput
from search.training.precision import choose_precision, products_in
from tests.search.small import SHAPE


def test_a_wanted_precision_is_taken_and_auto_finds_one() -> None:
    assert choose_precision("bf16", SHAPE) == "bf16"
    assert choose_precision("auto", SHAPE) in ("fp32", "bf16")


@pytest.mark.parametrize("wanted", ["fp16", "tf32"])
def test_what_no_cpu_computes_in_is_refused_there(wanted: str) -> None:
    with pytest.raises(InvalidInput, match=r"training\.precision.*GPU.*choose bf16, fp32 or auto"):
        choose_precision(wanted, SHAPE)


def test_products_are_rounded_for_tf32_alone_and_only_meanwhile() -> None:
    before = torch.get_float32_matmul_precision()
    with products_in("bf16"):
        assert torch.get_float32_matmul_precision() == before
    with products_in("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_trains_wide_matrices_in_fewer_bits() -> None:
    wide = replace(SHAPE, embed_dim=2048, ffn_dim=8192)
    assert choose_precision("auto", wide, torch.device("cuda")) in ("tf32", "bf16")
