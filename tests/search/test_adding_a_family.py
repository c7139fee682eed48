"""A family that the project does not know: the example of docs/adding-a-family.md, run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from search.errors import InvalidInput
from search.families import registry
from search.families.config import Config
from search.model.checkpoint import check_model_folder
from search.model.importing import import_model
from search.model.transformer import Batch

GUIDE = Path(__file__).parents[2] / "docs" / "adding-a-family.md"
CONFIG = {"model_type": "minibert", "width": 16, "depth": 2, "heads": 2, "vocabulary": 32}


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
    tensors = {t.name: torch.randn(t.size, generator=generator) for t in family.body(shape)}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    vocabulary = {"model": {"vocab": {f"w{i}": i for i in range(32)}}}
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
    return folder


@pytest.mark.usefixtures("example")
def test_the_guide_s_family_is_imported_and_runs(tmp_path: Path) -> None:
    folder = write(tmp_path)
    checked = check_model_folder(folder, num_labels=3)
    assert (checked.family.name, checked.shape.norm_first) == ("minibert", True)
    model = import_model(folder, checked.shape, seed=0).eval()
    ids = torch.tensor([[1, 2, 3]])
    assert model(Batch(ids, torch.ones_like(ids))).logits.shape == (1, 3)


@pytest.mark.usefixtures("example")
def test_its_config_is_read_with_suspicion(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="width 15 must be a multiple of heads 2"):
        check_model_folder(write(tmp_path, width=15))


def test_a_name_is_registered_once(example: ModuleType) -> None:
    with pytest.raises(ValueError, match="is registered"):
        registry.register(example.MINIBERT)
