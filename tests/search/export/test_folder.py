from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from search.errors import InvalidInput
from search.export import folder as writing
from search.export import load_subnet
from search.export.folder import AUTO_CLASSES, FITTED_FAMILIES, MODEL_FILE, write_model
from search.families.registry import family_of
from search.model.checkpoint import check_model_folder
from search.model.importing import import_model
from search.model.transformer import Batch, ElasticTransformer, KeyValueCache
from search.shape import ModelShape
from search.space import SubnetConfig
from tests.search.export.networks import ALL, rows_of, subnet_of, with_tokenizer
from tests.search.families import RARE, SHAPES, network_of

transformers = pytest.importorskip("transformers")

HAVE_HEAD_DIM = ("llama", "qwen2", "qwen3", "vit", "deit")
POOLED = ("text-classification", "pair-classification")


@pytest.fixture(autouse=True, scope="module")
def _own_modules(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where transformers copies the code of a folder to."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", folder)
        patch.syspath_prepend(folder)
        yield


def loaded(folder: Path, auto: str, *, trusted: bool = False) -> Any:
    return getattr(transformers, auto).from_pretrained(folder, trust_remote_code=trusted).eval()


def given_to_transformers(batch: Batch, shape: ModelShape) -> dict[str, torch.Tensor]:
    if shape.reads_images:
        return {"pixel_values": batch.inputs}
    types = {} if batch.token_types is None else {"token_type_ids": batch.token_types}
    return {"input_ids": batch.inputs, "attention_mask": batch.attention_mask, **types}


@torch.no_grad()
def assert_answers_alike(theirs: Any, model: ElasticTransformer) -> None:
    """Logits, or the hidden states of the last layer, on every real token."""
    shape = model.shape
    batch = rows_of(shape)
    found, output = theirs(**given_to_transformers(batch, shape)), model(batch)
    if "logits" in found:
        actual, expected, per_token = found.logits, output.logits, shape.answers_per_token
    else:
        actual, expected, per_token = found.last_hidden_state, output.hidden[-1], True
        expected = expected if model.norm is None else model.norm(expected)
    is_real = batch.attention_mask.bool() if per_token else slice(None)
    torch.testing.assert_close(actual[is_real], expected[is_real], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", list(ALL))
def test_a_written_folder_is_read_back_as_it_was(name: str, tmp_path: Path) -> None:
    shape = ALL[name]
    model = network_of(shape)
    write_model(model, tmp_path / "model")
    again = import_model(with_tokenizer(tmp_path / "model", shape), shape, seed=1)
    theirs = dict(again.named_parameters())
    has_head = shape.task not in POOLED
    for weight, mine in model.named_parameters():
        if has_head or not weight.startswith("head."):
            assert torch.equal(theirs[weight], mine), weight


@pytest.mark.parametrize("kind", ["whole", "uniform", "narrow"])
@pytest.mark.parametrize("name", [n for n in ALL if ALL[n].task not in POOLED])
def test_stock_classes_load_a_network_whose_layers_are_alike(
    name: str, kind: str, tmp_path: Path
) -> None:
    model = subnet_of(name, kind)
    write_model(model, tmp_path, ["a", "b", "c"])
    assert not (tmp_path / MODEL_FILE).exists()
    theirs = loaded(tmp_path, AUTO_CLASSES[model.shape.task])
    assert type(theirs).__module__.startswith("transformers.")
    assert_answers_alike(theirs, model)
    assert_answers_alike(loaded(tmp_path, "AutoModel"), model)
    if model.shape.task in ("token-classification", "image-classification"):
        assert theirs.config.id2label == {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize("name", HAVE_HEAD_DIM)
def test_stock_classes_load_fewer_heads_where_configs_say_how_wide_they_are(
    name: str, tmp_path: Path
) -> None:
    model = subnet_of(name, "few heads")
    write_model(model, tmp_path)
    assert not (tmp_path / MODEL_FILE).exists()
    assert_answers_alike(loaded(tmp_path, AUTO_CLASSES[model.shape.task]), model)


@pytest.mark.parametrize("name", [n for n in ALL if ALL[n].task in POOLED])
def test_a_classifier_of_texts_has_a_stock_body_under_a_head_of_our_own(
    name: str, tmp_path: Path
) -> None:
    model = subnet_of(name, "uniform")
    write_model(model, tmp_path, ["a", "b", "c"])
    assert_answers_alike(loaded(tmp_path, "AutoModel"), model)
    auto = "AutoModelForSequenceClassification"
    whole = loaded(tmp_path, auto, trusted=True)
    assert_answers_alike(whole, model)
    assert whole.config.id2label == {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in ALL
        for kind in ("few heads", "uneven", "uneven and narrow")
        if kind != "few heads" or name not in HAVE_HEAD_DIM
    ],
)
def test_transformers_loads_any_other_network_by_the_code_in_its_folder(
    name: str, kind: str, tmp_path: Path
) -> None:
    model = subnet_of(name, kind)
    write_model(model, tmp_path)
    for auto in {"AutoModel", AUTO_CLASSES[model.shape.task]}:
        theirs = loaded(tmp_path, auto, trusted=True)
        assert type(theirs).__name__.startswith("Snugnet")
        assert_answers_alike(theirs, model)


@pytest.mark.parametrize("name", list(SHAPES))
def test_tensors_keep_the_names_of_the_family_and_are_smaller(name: str, tmp_path: Path) -> None:
    for kind in ("whole", "uneven"):
        write_model(subnet_of(name, kind), tmp_path / kind)
    whole, uneven = (
        {n: t.shape for n, t in load_file(tmp_path / kind / "model.safetensors").items()}
        for kind in ("whole", "uneven")
    )
    assert uneven.keys() < whole.keys()
    smaller = {n.rpartition(".")[0] for n in uneven if uneven[n].numel() < whole[n].numel()}
    assert len(smaller) >= 2 * 3, "matrices of attention and feed-forward in both layers"


def test_layers_that_differ_are_named_as_the_library_names_them(tmp_path: Path) -> None:
    for name, own in (
        ("bert", {"num_attention_heads": 4, "intermediate_size": 16}),
        ("distilbert", {"n_heads": 4, "hidden_dim": 16}),
        ("gpt2", {"n_head": 4, "n_inner": 16}),
        ("llama", {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 16}),
    ):
        write_model(subnet_of(name, "uneven"), tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        assert config["per_layer_config"] == {"1": own}
        assert transformers.AutoConfig.from_pretrained(tmp_path).is_heterogeneous


@pytest.mark.parametrize("kind", ["few heads", "uneven", "uneven and narrow"])
@pytest.mark.parametrize("name", list(SHAPES))
def test_who_does_not_trust_the_code_gets_an_error_and_no_other_network(
    name: str, kind: str, tmp_path: Path
) -> None:
    if kind == "few heads" and name in HAVE_HEAD_DIM:
        kind = "uneven"
    write_model(subnet_of(name, kind), tmp_path)
    for auto in ("AutoModel", AUTO_CLASSES[SHAPES[name].task]):
        with pytest.raises(Exception, match=r"per-layer|mismatch|multiple|divi"):
            loaded(tmp_path, auto)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
@torch.no_grad()
def test_a_language_model_of_uneven_layers_writes_as_ours_does(name: str, tmp_path: Path) -> None:
    model = subnet_of(name, "uneven")
    write_model(model, tmp_path)
    theirs = loaded(tmp_path, "AutoModelForCausalLM", trusted=True)
    start = torch.tensor([[5, 9, 3]])
    written = theirs.generate(
        start, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    cache, tokens, new = KeyValueCache(), start, start
    for _ in range(6):
        mask = torch.ones_like(tokens)
        new = model(Batch(new, mask), cache=cache).logits[:, -1:].argmax(-1)
        tokens = torch.cat([tokens, new], 1)
    assert torch.equal(written, tokens)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "vit"])
def test_what_transformers_saves_again_it_loads_again(name: str, tmp_path: Path) -> None:
    model = subnet_of(name, "uneven")
    auto = AUTO_CLASSES[model.shape.task]
    write_model(model, tmp_path / "ours")
    loaded(tmp_path / "ours", auto, trusted=True).save_pretrained(tmp_path / "again")
    assert_answers_alike(loaded(tmp_path / "again", auto, trusted=True), model)


def test_a_classifier_learns_from_labels(tmp_path: Path) -> None:
    model = subnet_of("bert", "uneven")
    write_model(model, tmp_path)
    theirs = loaded(tmp_path, "AutoModelForSequenceClassification", trusted=True)
    batch = rows_of(model.shape)
    labels = torch.tensor([0, 1, 2, 0])
    found = theirs(**given_to_transformers(batch, model.shape), labels=labels)
    expected = torch.nn.functional.cross_entropy(found.logits, labels)
    torch.testing.assert_close(found.loss, expected)
    found.loss.backward()
    assert all(p.grad is not None for p in theirs.parameters())


@pytest.mark.parametrize("name", list(RARE))
def test_low_rank_shared_layers_and_linear_attention_load_by_the_code_and_no_other_way(
    name: str, tmp_path: Path
) -> None:
    model = network_of(RARE[name])
    write_model(model, tmp_path / "ours")
    again, _ = load_subnet(tmp_path / "ours")
    assert again.shape == model.shape
    batch = rows_of(model.shape)
    assert torch.equal(again(batch).logits, model(batch).logits)
    auto = AUTO_CLASSES[model.shape.task]
    theirs = loaded(tmp_path / "ours", auto, trusted=True)
    assert_answers_alike(theirs, model)
    theirs.save_pretrained(tmp_path / "again")
    assert_answers_alike(loaded(tmp_path / "again", auto, trusted=True), model)
    for stock in ("AutoModel", auto):
        with pytest.raises(Exception, match=r"per-layer|mismatch"):
            loaded(tmp_path / "ours", stock)


def test_a_folder_has_what_layers_share_once(tmp_path: Path) -> None:
    for group in (1, 3):
        shape = replace(SHAPES["bert"], layers_per_group=group)
        write_model(network_of(shape), tmp_path / str(group))
    apart, shared = (load_file(tmp_path / str(group) / "model.safetensors") for group in (1, 3))
    layers = {n for n in apart if ".layer." in n}
    assert apart.keys() - shared.keys() == {n for n in layers if ".layer.0." not in n}


def test_layers_that_share_a_place_in_a_cache_are_refused(tmp_path: Path) -> None:
    model = network_of(replace(SHAPES["gpt2"], layers_per_group=2))
    with pytest.raises(InvalidInput, match="in the library's cache"):
        write_model(model, tmp_path)


def test_a_search_does_not_start_from_layers_that_differ(tmp_path: Path) -> None:
    write_model(subnet_of("bert", "uneven"), tmp_path)
    with pytest.raises(InvalidInput, match="a model whose layers are alike") as caught:
        check_model_folder(with_tokenizer(tmp_path, SHAPES["bert"]))
    assert caught.value.field == "config.json"


def test_a_search_may_start_from_fewer_heads_of_the_same_width(tmp_path: Path) -> None:
    model = subnet_of("bert", "few heads")
    write_model(model, tmp_path)
    shape = check_model_folder(with_tokenizer(tmp_path, model.shape), num_labels=3).shape
    assert (shape.num_heads, shape.head_dim, shape.num_layers) == (2, 8, 2)
    again = import_model(tmp_path, shape, seed=0).eval()
    batch = rows_of(shape)
    torch.testing.assert_close(again(batch).hidden[-1], model(batch).hidden[-1])


def test_a_family_without_classes_of_its_own_has_uniform_folders_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "FITTED_FAMILIES", ("bert", "gpt2"))
    write_model(subnet_of("vit", "uniform"), tmp_path / "uniform")
    with pytest.raises(InvalidInput, match=r"where all are alike .* others for bert, gpt2"):
        write_model(subnet_of("vit", "uneven"), tmp_path / "uneven")
    assert not (tmp_path / "uneven").exists()


def test_a_stream_that_transformers_cannot_share_out_is_refused(tmp_path: Path) -> None:
    shape = replace(SHAPES["llama"], num_heads=6, queries_per_group=3)
    model = ElasticTransformer(shape, SubnetConfig(**_narrow(), embed_dim=20))
    with pytest.raises(InvalidInput, match="a stream whose width is a multiple of that, not 20"):
        write_model(model, tmp_path)


def _narrow() -> dict[str, Any]:
    return {"layers": (0, 1), "num_heads": (3, 6), "ffn_dim": (32, 16)}


def test_every_family_can_be_written() -> None:
    assert all(family_of(name).write_config for name in SHAPES)


def test_the_written_code_knows_the_families_that_are_written_with_it() -> None:
    from search.export import modeling_snugnet

    assert set(modeling_snugnet.FAMILIES) == set(FITTED_FAMILIES)
