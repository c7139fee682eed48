from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from search.errors import InvalidInput
from search.export import load_subnet
from search.export.folder import write_model
from search.model.extract import extract
from search.model.fakequant import REDUCED_WEIGHT_BITS
from tests.search.export.networks import ALL, SUBNETS, rows_of, subnet_of
from tests.search.families import SHAPES, network_of


@pytest.mark.parametrize("kind", SUBNETS)
@pytest.mark.parametrize("name", list(ALL))
@torch.no_grad()
def test_a_written_network_is_loaded_as_it_was(name: str, kind: str, tmp_path: Path) -> None:
    model = subnet_of(name, kind)
    write_model(model, tmp_path)
    again, subnet = load_subnet(tmp_path)
    assert subnet.num_heads == model.sizes.num_heads
    assert subnet.ffn_dim == model.sizes.ffn_dim
    assert not again.training
    assert again.shape.task == model.shape.task
    theirs = dict(again.named_parameters())
    for weight, mine in model.named_parameters():
        assert torch.equal(theirs.pop(weight), mine), weight
    assert not theirs
    batch = rows_of(model.shape)
    assert torch.equal(again(batch).logits, model(batch).logits)


@torch.no_grad()
def test_a_network_that_was_trained_for_int8_answers_under_its_rounding(tmp_path: Path) -> None:
    sizes = replace(SUBNETS["uneven"], precision="int8", float_layers=(2,))
    supernet = network_of(SHAPES["bert"])
    supernet.weight_bits = REDUCED_WEIGHT_BITS
    model, batch = extract(supernet, sizes).eval(), rows_of(supernet.shape)
    write_model(model, tmp_path)
    again, subnet = load_subnet(str(tmp_path))
    assert subnet == sizes.renumbered()
    assert again.weight_bits == REDUCED_WEIGHT_BITS
    assert torch.equal(again(batch).logits, model(batch).logits)
    exact = again(batch, subnet.with_precision("fp32")).logits
    assert not torch.equal(exact, again(batch).logits)


def change(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"per_layer_config": [1]}, "per_layer_config must be an object"),
        ({"per_layer_config": {"9": {}}}, "per_layer_config names '9', of 2 layers"),
        ({"per_layer_config": {"-1": {}}}, "per_layer_config names '-1'"),
        ({"per_layer_config": {"1": 4}}, "per_layer_config.1 must be an object"),
        ({"per_layer_config": {"1": {"intermediate_size": 0}}}, "intermediate_size must be"),
        ({"per_layer_config": {"1": {"hidden_size": 16}}}, "heads and neurons of a layer"),
        ({"per_layer_config": {}}, r"has shape \[32, 32\], config.json asks for \[16, 32\]"),
        ({"head_dim": 16}, "config.json asks for"),
        ({"snugnet": None}, "snugnet must be an object"),
        ({"snugnet": {"task": "poetry"}}, "task must be one of"),
        ({"snugnet": {"task": "language-modelling"}}, "a bert model does not do language-mod"),
        ({"snugnet": {"task": "text-classification", "precision": ["fp32"]}}, "precision must"),
        ({"id2label": {}}, "id2label must name"),
        ({"id2label": {"0": "a"}}, r"classifier.weight has shape \[3, 32\]"),
        ({"num_hidden_layers": 3}, "is missing"),
        ({"model_type": "mamba"}, "is unsupported"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    changes: dict[str, Any], match: str, tmp_path: Path
) -> None:
    write_model(subnet_of("bert", "uneven"), tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(InvalidInput, match=match):
        load_subnet(tmp_path)


def test_places_of_float_layers_are_checked(tmp_path: Path) -> None:
    write_model(subnet_of("bert", "uneven"), tmp_path)
    own = {"task": "text-classification", "precision": "int8"}
    for places in ([2], ["0"], 1):
        change(tmp_path, snugnet={**own, "float_layers": places})
        with pytest.raises(InvalidInput, match="float_layers must be a list of layers below 2"):
            load_subnet(tmp_path)


def test_a_folder_needs_its_weights(tmp_path: Path) -> None:
    write_model(subnet_of("bert", "uneven"), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InvalidInput, match=r"model\.safetensors: is missing"):
        load_subnet(tmp_path)


def test_loading_needs_no_transformers_and_importing_no_torch(tmp_path: Path) -> None:
    write_model(subnet_of("bert", "uneven"), tmp_path)
    code = (
        "import sys\n"
        "from search.export import load_subnet\n"
        "assert 'torch' not in sys.modules\n"
        f"load_subnet({str(tmp_path)!r})\n"
        "assert 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
