from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from search.errors import InvalidInput
from search.model.checkpoint import check_model_folder
from search.model.fresh import write_fresh_gpt2, write_fresh_vit
from search.model.importing import import_model

TEXTS = ["def add(a, b):\n    return a + b\n", "def sub(a, b):\n    return a - b\n"] * 20
SMALL = {"num_layers": 2, "embed_dim": 16, "num_heads": 2}


def test_a_fresh_gpt2_is_a_folder_that_can_be_searched(tmp_path: Path) -> None:
    shape = write_fresh_gpt2(tmp_path, TEXTS, vocab_size=280, max_seq_len=32, **SMALL)
    assert check_model_folder(tmp_path).shape == shape
    assert 257 < shape.vocab_size <= 280
    model = import_model(tmp_path, shape, seed=3)
    write_fresh_gpt2(tmp_path / "again", TEXTS, vocab_size=280, max_seq_len=32, **SMALL)
    again = import_model(tmp_path / "again", shape, seed=4)
    for mine, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_its_tokenizer_reads_any_text_and_writes_it_back(tmp_path: Path) -> None:
    write_fresh_gpt2(tmp_path, TEXTS, vocab_size=280, max_seq_len=32, **SMALL)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("return a  +\tb\n", "naïve – 北京 🙂\x00"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert len(tokenizer.encode("    return a").ids) < 8


def test_a_fresh_vit_is_a_folder_that_can_be_searched(tmp_path: Path) -> None:
    shape = write_fresh_vit(
        tmp_path, image_size=8, patch_size=2, num_channels=1, num_labels=10, **SMALL
    )
    checked = check_model_folder(tmp_path, num_labels=10)
    assert checked.shape == shape
    assert checked.has_head
    assert shape.max_seq_len == 17


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="embed_dim 16 must be a multiple of it, got 3"):
        write_fresh_gpt2(tmp_path, TEXTS, embed_dim=16, num_heads=3)
    with pytest.raises(InvalidInput, match="image_size 8 must be a multiple of it, got 3"):
        write_fresh_vit(tmp_path, image_size=8, patch_size=3, num_channels=1, num_labels=2)
    assert not list(tmp_path.iterdir())
