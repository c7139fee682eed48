from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from search.errors import InvalidInput
from search.export.folder import write_model
from search.families.registry import family_of
from search.model.extract import extract
from search.model.importing import import_model
from search.shape import ModelShape
from search.space import SubnetConfig
from tests.search.families import SHAPES, batch_of, network_of

TAGS = {
    f"{name}/tags": replace(SHAPES[name], task="token-classification")
    for name in ("bert", "distilbert", "roberta")
}
ALL = {**SHAPES, **TAGS}
HALF = SubnetConfig(layers=(0, 2), num_heads=(2, 4), ffn_dim=(32, 16))


def with_tokenizer(folder: Path, shape: ModelShape) -> Path:
    """What a folder of a text model needs beside its weights."""
    if not shape.reads_images:
        vocab = {f"t{i}": i for i in range(shape.vocab_size)}
        tokenizer = {"model": {"type": "WordPiece", "vocab": vocab}}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize("name", list(ALL))
def test_a_written_folder_is_read_back_as_it_was(name: str, tmp_path: Path) -> None:
    shape = ALL[name]
    model = network_of(shape)
    write_model(model, tmp_path / "model")
    again = import_model(with_tokenizer(tmp_path / "model", shape), shape, seed=1)
    theirs = dict(again.named_parameters())
    has_head = shape.task != "text-classification"
    for weight, mine in model.named_parameters():
        if has_head or not weight.startswith("head."):
            assert torch.equal(theirs[weight], mine), weight


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gpt2", "AutoModelForCausalLM"),
        ("llama", "AutoModelForCausalLM"),
        ("qwen3", "AutoModelForCausalLM"),
        ("vit", "AutoModelForImageClassification"),
        ("bert/tags", "AutoModelForTokenClassification"),
        ("roberta/tags", "AutoModelForTokenClassification"),
        ("distilbert/tags", "AutoModelForTokenClassification"),
    ],
)
def test_transformers_reads_a_written_folder(name: str, kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shape = ALL[name]
    model, batch = network_of(shape), batch_of(shape)
    if not shape.reads_images:
        # RoBERTa takes token 1 for padding wherever it stands.
        batch = batch._replace(inputs=torch.where(batch.inputs < 2, 2, batch.inputs))
    write_model(model, tmp_path, ["a", "b", "c"])
    theirs: Any = getattr(transformers, kind).from_pretrained(tmp_path).eval()
    given = (
        {"pixel_values": batch.inputs}
        if shape.reads_images
        else {"input_ids": batch.inputs, "attention_mask": batch.attention_mask}
    )
    with torch.no_grad():
        found, expected = theirs(**given).logits, model(batch).logits
    is_real = batch.attention_mask.bool() if shape.answers_per_token else slice(None)
    torch.testing.assert_close(found[is_real], expected[is_real], atol=1e-4, rtol=1e-4)
    if shape.task != "language-modelling":
        assert theirs.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_a_part_of_a_model_has_no_such_folder(tmp_path: Path) -> None:
    model = extract(network_of(SHAPES["bert"]), HALF)
    with pytest.raises(InvalidInput, match="only a whole model"):
        write_model(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_family_can_be_written() -> None:
    assert all(family_of(name).write_config for name in SHAPES)
