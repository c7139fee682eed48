"""A family that the project does not know: the example of docs/adding-a-family.md, run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from search.errors import InvalidInput
from search.families import registry
from search.families.config import Config
from search.model.checkpoint import check_model_folder
from search.model.importing import import_model
from search.model.transformer import Batch

GUIDE = Path(__file__).parents[2] / "docs" / "adding-a-family.md"
CONFIG: dict[str, Any] = {
    "model_type": "minibert",
    "width": 16,
    "depth": 2,
    "heads": 2,
    "vocabulary": 32,
}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The guide's file, imported; its registration is forgotten after the test."""
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    (source,) = re.findall(
        r"```python\n(# search/families/minibert.py.*?)```", GUIDE.read_text(), re.S
    )
    module = ModuleType("minibert")
    exec(compile(source, str(GUIDE), "exec"), module.__dict__)
    registry.register(module.MINIBERT)
    return module


def write(folder: Path, **config: Any) -> Path:
    family = registry.family_of("minibert")
    shape = family.read_shape(Config(CONFIG), "text-classification")
    generator = torch.Generator().manual_seed(0)
    tensors = {
        t.name: 0.3 * torch.randn(t.size, generator=generator) + ("norm" in t.name)
        for t in family.body(shape)
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    vocabulary = {"model": {"vocab": {f"w{i}": i for i in range(32)}}}
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
    return folder


def minibert(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """The guide's model written out, (seq, width) for token ids (seq,)."""
    x = weights["words"][ids] + weights["places"][: len(ids)]
    for i in range(CONFIG["depth"]):
        block = {n.removeprefix(f"blocks.{i}."): w for n, w in weights.items()}
        q, k, v = (
            part.view(len(ids), CONFIG["heads"], -1).transpose(0, 1)
            for part in (rms(x, block["norm1.weight"]) @ block["qkv"].T).chunk(3, -1)
        )
        seen = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = x + F.linear(seen.transpose(0, 1).flatten(1), block["out.weight"], block["out.bias"])
        h = F.linear(rms(x, block["norm2.weight"]), block["up.weight"], block["up.bias"])
        x = x + F.linear(F.gelu(h), block["down.weight"], block["down.bias"])
    return rms(x, weights["norm.weight"])


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / x.square().mean(-1, keepdim=True).sqrt() * weight


@pytest.mark.usefixtures("example")
@torch.no_grad()
def test_the_guide_s_family_is_imported_and_computes_what_its_reference_does(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path)
    checked = check_model_folder(folder, num_labels=3)
    assert (checked.family.name, checked.shape.norm_first) == ("minibert", True)
    model = import_model(folder, checked.shape, seed=0).eval()
    ids = torch.tensor([7, 1, 30, 2, 3])
    given = Batch(ids[None], torch.ones_like(ids)[None])
    output = model(given)
    assert output.logits.shape == (1, 3)
    assert model.norm is not None
    expected = minibert(load_file(folder / "model.safetensors"), ids)
    torch.testing.assert_close(model.norm(output.hidden[-1])[0], expected, atol=1e-4, rtol=0)
    embedder = check_model_folder(folder, task="sentence-embedding").shape
    pooled = import_model(folder, embedder, seed=0).eval()(given).logits
    torch.testing.assert_close(pooled[0], expected.mean(0), atol=1e-4, rtol=0)


@pytest.mark.usefixtures("example")
def test_what_is_supported_names_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"supported: bert, .*, deit, minibert$"):
        check_model_folder(write(tmp_path, model_type="mamba"))


@pytest.mark.usefixtures("example")
def test_its_config_is_read_with_suspicion(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="width 15 must be a multiple of heads 2"):
        check_model_folder(write(tmp_path, width=15))


def test_a_name_is_registered_once(example: ModuleType) -> None:
    with pytest.raises(ValueError, match="is registered"):
        registry.register(example.MINIBERT)
