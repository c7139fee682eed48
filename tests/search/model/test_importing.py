"""Every family from the folder that transformers writes, equal to transformers."""

from __future__ import annotations

import inspect
import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from search.errors import InvalidInput
from search.families.config import Config
from search.families.registry import family_of, family_of_config
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
    "bert with another gelu": transformers.BertConfig(**BERT_LIKE, hidden_act="gelu_new"),
    "roberta": transformers.RobertaConfig(**BERT_LIKE, type_vocab_size=1, layer_norm_eps=1e-5),
    "xlm-roberta": transformers.XLMRobertaConfig(**BERT_LIKE, type_vocab_size=1),
    "camembert": transformers.CamembertConfig(**BERT_LIKE, type_vocab_size=1),
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
    "vit without biases": transformers.ViTConfig(**VIT_LIKE, qkv_bias=False),
    # DeiT has two classes for the task; the other one is below.
    "deit": transformers.DeiTConfig(**VIT_LIKE, architectures=["DeiTForImageClassification"]),
}
TEXTS = [[5, 9, 3, 60, 22, 17, 8], [7, 7, 41], [12, 63, 30, 2, 19]]


def written(folder: Path, kind: str, auto: Any, num_labels: int = 2, **options: Any) -> Any:
    """A random model of transformers, saved to the folder with weights that matter."""
    torch.manual_seed(0)
    config = deepcopy(CONFIGS[kind])
    config.num_labels = num_labels
    model = auto.from_config(config)
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
        change_config(folder, tie_word_embeddings=True)
    return imported(folder)


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


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
    their_cache = transformers.DynamicCache(config=reference.config)
    taken = inspect.signature(reference.forward).parameters
    their_name = "cache" if "cache" in taken else "past_key_values"  # until version 5.24
    steps = []
    for start, end in [(0, 3), (3, 4), (4, 5), (5, ids.shape[1])]:
        mine = model(Batch(ids[:, start:end], ones[:, :end]), cache=cache).logits
        other = reference(
            input_ids=ids[:, start:end],
            attention_mask=ones[:, :end],
            use_cache=True,
            **{their_name: their_cache},
        ).logits
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=0)
        steps.append(mine)
    assert cache.num_tokens == their_cache.get_seq_length() == ids.shape[1]
    torch.testing.assert_close(torch.cat(steps, 1), whole[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["vit", "deit"])
@torch.no_grad()
def test_an_image_model_brings_its_classifier(tmp_path: Path, kind: str) -> None:
    reference = written(tmp_path, kind, transformers.AutoModelForImageClassification, 5)
    model = imported(tmp_path, num_labels=5)
    given = pixels(model)
    theirs = reference(pixel_values=given.inputs).logits
    ours = model(given).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert imported(tmp_path, num_labels=3)(given).logits.shape == (2, 3)


@torch.no_grad()
def test_the_two_averaged_classifiers_of_a_distilled_deit_give_way_to_a_fresh_one(
    tmp_path: Path,
) -> None:
    config = transformers.DeiTConfig(**VIT_LIKE, num_labels=5)
    reference = transformers.DeiTForImageClassificationWithTeacher(config).eval()
    reference.save_pretrained(tmp_path)
    assert not check_model_folder(tmp_path, num_labels=5).has_head
    model = imported(tmp_path, num_labels=5)
    given = pixels(model)
    theirs = reference.deit(pixel_values=given.inputs).last_hidden_state
    torch.testing.assert_close(last_hidden(model, given), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "camembert"])
@torch.no_grad()
def test_an_encoder_brings_its_classifier_of_tokens(tmp_path: Path, kind: str) -> None:
    reference = written(tmp_path, kind, transformers.AutoModelForTokenClassification, 4)
    given = padded()
    theirs = reference(input_ids=given.inputs, attention_mask=given.attention_mask).logits
    ours = imported(tmp_path, num_labels=4, task="token-classification")(given).logits
    real = given.attention_mask.bool()
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_classifier_of_whole_texts_is_not_taken_for_one_of_tokens(tmp_path: Path) -> None:
    reference = written(tmp_path, "bert", transformers.AutoModelForSequenceClassification, 4)
    for task in ("text-classification", "token-classification"):
        head = imported(tmp_path, num_labels=4, task=task).head
        assert head is not None
        assert head.weight.shape == reference.classifier.weight.shape
        assert not torch.equal(head.weight, reference.classifier.weight)


@torch.no_grad()
def test_a_head_that_the_config_claims_to_be_tied_is_read_where_it_is_not(tmp_path: Path) -> None:
    reference = written(tmp_path, "llama", transformers.AutoModelForCausalLM)
    change_config(tmp_path, tie_word_embeddings=True)
    model = imported(tmp_path)
    assert not model.shape.has_tied_head
    given = padded()
    theirs = reference(input_ids=given.inputs, attention_mask=given.attention_mask).logits
    real = given.attention_mask.bool()
    torch.testing.assert_close(model(given).logits[real], theirs[real], atol=1e-4, rtol=0)

    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    assert imported(tmp_path).shape.has_tied_head


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_weights_of_half_precision_keep_their_values(tmp_path: Path, dtype: torch.dtype) -> None:
    written(tmp_path, "gpt2", transformers.AutoModelForCausalLM)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({n: t.to(dtype) for n, t in tensors.items()}, tmp_path / "model.safetensors")
    model = imported(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    table = tensors["transformer.wte.weight"].to(dtype).float()
    torch.testing.assert_close(model.embeddings.word.weight.data, table, atol=0, rtol=0)


@torch.no_grad()
def test_a_fresh_head_depends_on_the_seed_and_the_body_does_not(tmp_path: Path) -> None:
    written(tmp_path, "distilbert", transformers.AutoModel)
    shape = check_model_folder(tmp_path, num_labels=3).shape
    first, again, other = (import_model(tmp_path, shape, seed) for seed in (1, 1, 2))
    different = [
        name
        for name, weight in first.named_parameters()
        if not torch.equal(weight, other.get_parameter(name))
    ]
    assert different == ["head.weight"]
    assert all(torch.equal(p, again.get_parameter(n)) for n, p in first.named_parameters())


def test_a_folder_of_another_shape_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "bert", transformers.AutoModel)
    shape = check_model_folder(tmp_path).shape
    with pytest.raises(InvalidInput, match="asks for ModelShape") as caught:
        import_model(tmp_path, replace(shape, ffn_dim=16), seed=0)
    assert caught.value.field == "config.json"


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
        ("llama", {"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "'linear'"),
        ("llama", {"rope_parameters": {"full_attention": {}}}, "differs by layers"),
        ("llama", {"rope_parameters": ["default"]}, "rope_parameters must be an object"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is unsupported"),
        ("llama", {"hidden_act": "relu"}, "hidden_act 'relu' is unsupported"),
        ("llama", {"head_dim": 7}, "head_dim 7 must be even"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention'"),
        ("qwen2", {"layer_types": "sliding_attention"}, "layer_types must be a list"),
        ("qwen2", {"tie_word_embeddings": False}, "lm_head.weight is missing"),
        ("qwen2", {"num_hidden_layers": 2}, r"layers\.2\..* says that there are 2 layers"),
        ("vit", {"num_hidden_layers": 2}, r"layer\.2\..* says that there are 2 layers"),
        ("vit", {"qkv_bias": "yes"}, "qkv_bias must be true or false"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights"),
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
    change_config(tmp_path, **{"tie_word_embeddings": True, **changes})
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


@pytest.mark.parametrize(
    ("changes", "rope_theta"),
    [
        ({"rope_parameters": None}, 10_000.0),
        ({"rope_parameters": None, "rope_theta": 5e5}, 5e5),
        ({"rope_parameters": None, "rope_theta": 5e5, "rope_scaling": None}, 5e5),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 3e4}, "rope_theta": 5e5}, 3e4),
        ({"rope_parameters": None, "rope_theta": 5e5, "rope_scaling": {"type": "default"}}, 5e5),
    ],
)
@torch.no_grad()
def test_the_base_of_the_angles_is_read_from_old_and_new_keys_as_transformers_does(
    tmp_path: Path, changes: dict[str, Any], rope_theta: float
) -> None:
    written(tmp_path, "smollm", transformers.AutoModelForCausalLM)
    change_config(tmp_path, **changes)
    model, given = imported(tmp_path), padded()
    assert model.shape.rope_theta == rope_theta
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    theirs = reference(input_ids=given.inputs, attention_mask=given.attention_mask).logits
    real = given.attention_mask.bool()
    torch.testing.assert_close(model(given).logits[real], theirs[real], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_a_config_leaves_out_is_what_transformers_takes_it_for(kind: str) -> None:
    family = family_of_config(CONFIGS[kind].model_type)
    given = CONFIGS[kind].to_dict()
    accepted = []
    for key in sorted(set(given) - {"model_type"}):
        rest = {k: v for k, v in given.items() if k != key}
        try:
            shape = family.read_shape(Config(rest), family.tasks[0])
        except InvalidInput:
            continue  # a size that has to be there
        completed = type(CONFIGS[kind]).from_dict(rest).to_dict()
        assert shape == family.read_shape(Config(completed), family.tasks[0]), key
        accepted.append(key)
    assert len(accepted) > 3


def test_a_vision_folder_needs_no_tokenizer_and_its_preprocessor_must_be_json(
    tmp_path: Path,
) -> None:
    written(tmp_path, "deit", transformers.AutoModel)
    assert not (tmp_path / "tokenizer.json").exists()
    check_model_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": 12')
    with pytest.raises(InvalidInput, match="not valid JSON") as caught:
        check_model_folder(tmp_path)
    assert caught.value.field == "preprocessor_config.json"


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
