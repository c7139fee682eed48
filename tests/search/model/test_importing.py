"""Every family from the folder that transformers writes, equal to transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from search.errors import InvalidInput
from search.families.registry import family_of
from search.model.checkpoint import check_model_folder
from search.model.importing import import_model
from search.model.transformer import Batch, ElasticTransformer, KeyValueCache

BERT_LIKE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 26,
}
LLAMA_LIKE = {**BERT_LIKE, "num_key_value_heads": 2, "use_cache": False}
VIT_LIKE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 12,
    "patch_size": 4,
    "num_channels": 3,
}
CONFIGS: dict[str, Any] = {
    "bert": transformers.BertConfig(**BERT_LIKE),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=64, dim=32, n_layers=3, n_heads=4, hidden_dim=48, max_position_embeddings=26
    ),
    "roberta": transformers.RobertaConfig(**BERT_LIKE, type_vocab_size=1, layer_norm_eps=1e-5),
    "gpt2": transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_inner=48, n_positions=26
    ),
    "llama": transformers.LlamaConfig(**LLAMA_LIKE),
    "smollm": transformers.LlamaConfig(
        **LLAMA_LIKE,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
    ),
    "biased llama": transformers.LlamaConfig(**LLAMA_LIKE, attention_bias=True, mlp_bias=True),
    "qwen2": transformers.Qwen2Config(**LLAMA_LIKE),
    "qwen3": transformers.Qwen3Config(**LLAMA_LIKE, head_dim=12),
    "vit": transformers.ViTConfig(**VIT_LIKE),
    "deit": transformers.DeiTConfig(**VIT_LIKE),
}
TEXTS = [[5, 9, 3, 60, 22, 17, 8], [7, 7, 41], [12, 63, 30, 2, 19]]


def written(folder: Path, kind: str, auto: Any, **options: Any) -> Any:
    """A random model of transformers, saved to the folder with weights that matter."""
    torch.manual_seed(0)
    model = auto.from_config(CONFIGS[kind])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = "norm" in name.lower() or ".ln_" in name
            parameter.normal_(mean=float(is_norm and name.endswith("weight")), std=0.2)
    model.save_pretrained(folder, **options)
    if CONFIGS[kind].model_type not in ("vit", "deit"):
        words = {f"w{i}": i for i in range(64)}
        Tokenizer(WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    return model.eval()


def imported(folder: Path, num_labels: int = 2, task: str | None = None) -> ElasticTransformer:
    shape = check_model_folder(folder, num_labels=num_labels, task=task).shape
    return import_model(folder, shape, seed=0).eval()


def padded() -> Batch:
    longest = max(map(len, TEXTS))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in TEXTS])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in TEXTS])
    return Batch(ids, mask)


def pixels(model: ElasticTransformer) -> Batch:
    images = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.ones(2, model.shape.max_seq_len, dtype=torch.int64))


@torch.no_grad()
def last_hidden(model: ElasticTransformer, batch: Batch) -> torch.Tensor:
    hidden = model(batch).hidden[-1]
    return hidden if model.norm is None else model.norm(hidden)


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_the_last_hidden_state_is_that_of_transformers(
    tmp_path: Path, kind: str, sharded: bool
) -> None:
    options = {"max_shard_size": "20KB"} if sharded else {}
    reference = written(tmp_path, kind, transformers.AutoModel, **options)
    assert (tmp_path / "model.safetensors.index.json").exists() == sharded
    model = imported_body(tmp_path, kind)
    if model.shape.reads_images:
        given = pixels(model)
        theirs = reference(pixel_values=given.inputs).last_hidden_state
        torch.testing.assert_close(last_hidden(model, given), theirs, atol=1e-4, rtol=0)
        return
    given = padded()
    theirs = reference(
        input_ids=given.inputs, attention_mask=given.attention_mask
    ).last_hidden_state
    real = given.attention_mask.bool()
    torch.testing.assert_close(last_hidden(model, given)[real], theirs[real], atol=1e-4, rtol=0)


def imported_body(folder: Path, kind: str) -> ElasticTransformer:
    """Bodies of decoders are saved without a head of their own; then the word table serves."""
    if kind in ("llama", "biased llama", "qwen2", "qwen3"):
        config = folder / "config.json"
        config.write_text(
            config.read_text().replace(
                '"tie_word_embeddings": false', '"tie_word_embeddings": true'
            )
        )
    return imported(folder)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "smollm", "biased llama", "qwen2", "qwen3"])
@torch.no_grad()
def test_a_decoder_gives_the_logits_of_transformers_at_once_and_step_by_step(
    tmp_path: Path, kind: str
) -> None:
    reference = written(tmp_path, kind, transformers.AutoModelForCausalLM)
    model = imported(tmp_path)
    given = padded()
    whole = model(given).logits
    theirs = reference(input_ids=given.inputs, attention_mask=given.attention_mask).logits
    real = given.attention_mask.bool()
    torch.testing.assert_close(whole[real], theirs[real], atol=1e-4, rtol=0)
    cache, ids = KeyValueCache(), given.inputs[:1]
    ones = torch.ones_like(ids)
    steps = [model(Batch(ids[:, :3], ones[:, :3]), cache=cache).logits]
    for place in range(3, ids.shape[1]):
        batch = Batch(ids[:, place : place + 1], ones[:, : place + 1])
        steps.append(model(batch, cache=cache).logits)
    assert cache.num_tokens == ids.shape[1]
    torch.testing.assert_close(torch.cat(steps, 1), whole[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["vit", "deit"])
@torch.no_grad()
def test_an_image_model_brings_its_classifier(tmp_path: Path, kind: str) -> None:
    CONFIGS[kind].num_labels = 5
    reference = written(tmp_path, kind, transformers.AutoModelForImageClassification)
    model = imported(tmp_path, num_labels=5)
    given = pixels(model)
    theirs = reference(pixel_values=given.inputs).logits
    ours = model(given).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert imported(tmp_path, num_labels=3)(given).logits.shape == (2, 3)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
@torch.no_grad()
def test_an_encoder_brings_its_classifier_of_tokens(tmp_path: Path, kind: str) -> None:
    CONFIGS[kind].num_labels = 4
    reference = written(tmp_path, kind, transformers.AutoModelForTokenClassification)
    given = padded()
    theirs = reference(input_ids=given.inputs, attention_mask=given.attention_mask).logits
    ours = imported(tmp_path, num_labels=4, task="token-classification")(given).logits
    real = given.attention_mask.bool()
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_two_texts_of_a_pair_are_told_apart(tmp_path: Path) -> None:
    reference = written(tmp_path, "bert", transformers.AutoModel)
    model = imported(tmp_path, task="pair-classification")
    given = padded()
    types = (torch.arange(7) > 2).long().expand(3, -1)
    theirs = reference(
        input_ids=given.inputs, attention_mask=given.attention_mask, token_type_ids=types
    ).last_hidden_state
    ours = model(given._replace(token_types=types)).hidden[-1]
    real = given.attention_mask.bool()
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("kind", "changes", "match"),
    [
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "llama3"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("llama", {"num_key_value_heads": 3}, "must be a multiple of num_key_value_heads"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"activation_function": "relu"}, "activation_function 'relu' is unsupported"),
        ("roberta", {"pad_token_id": 0}, "pad_token_id"),
        ("vit", {"patch_size": 5}, "image_size 12 must be a multiple of patch_size 5"),
        ("vit", {"num_channels": 1}, "config.json asks for"),
        ("gpt2", {"n_positions": 20}, r"has shape \[26, 32\], config.json asks for \[20, 32\]"),
        ("bert", {"model_type": "mamba"}, "is unsupported; supported: bert, distilbert, roberta"),
    ],
)
def test_what_would_compute_something_else_is_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any], match: str
) -> None:
    written(tmp_path, kind, transformers.AutoModel)
    config = json.loads((tmp_path / "config.json").read_text())
    tied = {"tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps({**config, **tied, **changes}))
    with pytest.raises(InvalidInput, match=match):
        check_model_folder(tmp_path)


def test_a_task_that_a_family_does_not_do_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "gpt2", transformers.AutoModelForCausalLM)
    with pytest.raises(
        InvalidInput, match="a gpt2 model does language-modelling, not 'text-"
    ) as e:
        check_model_folder(tmp_path, task="text-classification")
    assert e.value.field == "task"
    assert family_of("gpt2").phases == ("prefill", "decode")


def test_a_shard_that_is_missing_or_elsewhere_is_named(tmp_path: Path) -> None:
    written(tmp_path, "bert", transformers.AutoModel, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    good = index.read_text()
    first = sorted(tmp_path.glob("model-*.safetensors"))[0].name
    index.write_text(good.replace(first, "../other.safetensors"))
    with pytest.raises(InvalidInput, match="it must be a file here"):
        check_model_folder(tmp_path)
    index.write_text(good)
    (tmp_path / first).unlink()
    with pytest.raises(InvalidInput, match=r"is missing, but model\.safetensors") as caught:
        check_model_folder(tmp_path)
    assert caught.value.field == first
