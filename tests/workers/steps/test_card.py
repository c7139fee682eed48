"""The card of each task: read by a machine, and its code run in the folder it is about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.export.folder import write_model
from search.export.package import export_onnx
from search.model.extract import extract
from search.shape import TASKS
from search.space import SubnetConfig
from tests.search.families import SHAPES, network_of
from tests.search.training.tokenizers import write_bytes, write_wordpiece
from workers.steps.card import Card
from workers.steps.origin import Origin

FAMILY = {"language-modelling": "gpt2", "image-classification": "vit"}
UNEVEN = SubnetConfig(layers=(0, 2), num_heads=(2, 4), ffn_dim=(32, 16))
UNIFORM = SubnetConfig(layers=(0, 2), num_heads=(4, 4), ffn_dim=(32, 32))
JUDGED = {
    "quality": 0.9,
    "quality_interval": {"lower": 0.85, "upper": 0.9312},
    "p50_ms": 1.234,
    "p95_ms": 2.0,
    "size_bytes": 1000,
    "params": 99,
}
PROFILE = {
    "device": {"cpu_model": "Imaginary 9000"},
    "workload": {
        "runtime": "onnxruntime",
        "provider": "cpu",
        "batch_size": 4,
        "seq_len": 48,
        "threads": 2,
        "phase": "encode",
    },
    "baseline": {"p50_ms": 5.0, "p95_ms": 6.0},
}


@pytest.fixture(scope="module", autouse=True)
def _own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where transformers copies the code of a folder to."""
    pytest.importorskip("transformers")
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", folder)
        patch.syspath_prepend(folder)
        yield


def card_of(
    task: str, folder: Path, subnet: SubnetConfig = UNEVEN, origin: Origin | None = None
) -> Card:
    """Of a network whose folder is written as a job writes it."""
    has_labels = task not in ("language-modelling", "sentence-embedding")
    shape = replace(SHAPES[FAMILY.get(task, "bert")], task=task)
    if task == "language-modelling":
        shape = replace(shape, vocab_size=300, num_labels=300)
    names = ("good", "bad", "so-so") if has_labels else ()
    shape = replace(shape, num_labels=len(names)) if task == "sentence-embedding" else shape
    model = extract(network_of(shape), subnet)
    write_model(model, folder, names)
    (folder / "onnx").mkdir()
    export_onnx(model, subnet, folder / "onnx/model.onnx")
    if shape.reads_images:
        how = {"image_mean": [0.5] * shape.num_channels, "image_std": [0.2] * shape.num_channels}
        (folder / "preprocessor_config.json").write_text(json.dumps(how))
    else:
        (write_bytes if shape.is_causal else write_wordpiece)(folder)
    return Card(
        shape=shape,
        subnet=subnet,
        label_names=names,
        onnx="onnx/model.onnx",
        config=json.loads((folder / "config.json").read_text()),
        figures={**JUDGED, "budget_ms": 1.5},
        report={"baseline": JUDGED},
        profile=PROFILE,
        origin=origin or Origin(),
    )


def front_matter(text: str) -> dict[str, Any]:
    opening, data, _ = text.split("---\n", 2)
    assert opening == ""
    found = yaml.safe_load(data)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("task", "tag", "title"),
    [
        ("text-classification", "text-classification", "# A text classifier that fits 1.50 ms"),
        ("pair-classification", "text-classification", "# A classifier of pairs of texts that"),
        ("token-classification", "token-classification", "# A tagger of tokens that"),
        ("sentence-embedding", "feature-extraction", "# An encoder of sentences that"),
        ("language-modelling", "text-generation", "# A language model that"),
        ("image-classification", "image-classification", "# An image classifier that"),
    ],
)
def test_a_card_says_what_its_network_is_for(
    task: str, tag: str, title: str, tmp_path: Path
) -> None:
    card = card_of(task, tmp_path)
    text = card.text()
    data = front_matter(text)
    assert data["pipeline_tag"] == tag
    assert data["tags"] == ["snugnet", "neural-architecture-search", "onnx", "custom_code"]
    assert data.keys() == {"library_name", "pipeline_tag", "tags"}
    assert title in text
    assert ("Labels: good, bad, so-so." in text) == bool(card.label_names)
    assert "0.8500 to 0.9312" in text
    assert "| 1.234 | 5.000 |" in text
    given = "patches" if task == "image-classification" else "tokens"
    assert f"Imaginary 9000 in onnxruntime (cpu): batch 4, 48 {given}, phase encode, 2 th" in text
    assert "Base model: unknown. Its licence: unknown." in text
    for name in ("metrics.json", "manifest.json"):
        assert f"`{name}`" in text


@pytest.mark.parametrize("task", TASKS)
def test_the_snippet_runs_the_exported_file(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = card_of(task, tmp_path)
    assert card.snippet() in card.text()
    with chdir(tmp_path):
        exec(card.snippet(), {})
    printed = capsys.readouterr().out.strip()
    if task in ("text-classification", "pair-classification", "image-classification"):
        assert printed in card.label_names
    elif task == "token-classification":
        assert any(f", '{name}')" in printed for name in card.label_names)
    else:
        assert printed


@pytest.mark.parametrize("subnet", [UNIFORM, UNEVEN], ids=["uniform", "uneven"])
@pytest.mark.parametrize("task", TASKS)
def test_the_lines_that_load_the_folder_load_it(
    task: str, subnet: SubnetConfig, tmp_path: Path
) -> None:
    card = card_of(task, tmp_path, subnet)
    assert card.loading() in card.text()
    found: dict[str, Any] = {}
    with chdir(tmp_path):
        exec(card.loading(), found)
    assert found["subnet"] == subnet.renumbered()
    is_ours = type(found["model"]).__name__.startswith("Snugnet")
    assert is_ours == ("trust_remote_code" in card.loading())
    assert ("mean of its tokens" in card.loading()) == (task == "sentence-embedding")


def test_base_model_and_licence_are_told_where_they_are_known(tmp_path: Path) -> None:
    origin = Origin(base_model="someone/mini-bert", license="apache-2.0")
    card = card_of("text-classification", tmp_path, UNIFORM, origin)
    data = front_matter(card.text())
    assert data["base_model"] == "someone/mini-bert"
    assert data["base_model_relation"] == "finetune"
    assert data["license"] == "apache-2.0"
    assert "Base model: someone/mini-bert. Its licence: apache-2.0." in card.text()
    quantized = replace(card, subnet=UNIFORM.with_precision("int8"))
    assert front_matter(quantized.text())["base_model_relation"] == "quantized"
    assert "trained under the rounding of int8" in quantized.text()


def test_energy_is_told_where_it_was_measured(tmp_path: Path) -> None:
    card = card_of("text-classification", tmp_path)
    assert "energy" not in card.text()
    measured = replace(
        card,
        figures={**card.figures, "energy_mj": 3.5},
        report={"baseline": {**JUDGED, "energy_mj": 20}},
    )
    assert "| energy of an inference, mJ | 3.50 | 20.00 |" in measured.text()


def test_a_network_without_a_folder_has_a_card_for_its_onnx(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = replace(card_of("text-classification", tmp_path), config={})
    assert front_matter(card.text())["library_name"] == "onnxruntime"
    assert "load_subnet" not in card.text()
    (tmp_path / "config.json").unlink()
    with chdir(tmp_path):
        exec(card.snippet(), {})
    assert capsys.readouterr().out.startswith("[")


def test_a_card_lists_the_further_formats_that_were_written(tmp_path: Path) -> None:
    card = card_of("text-classification", tmp_path)
    assert "Further formats" not in card.text()
    written = {
        "format": "openvino-int8",
        "files": {"openvino/a.xml": "aa", "openvino/a.bin": "bb"},
        "size_bytes": 77,
        "precision": "int8",
        "agreement": 0.984,
        "note": "in fp32: layers 2",
        "error": "",
    }
    failed = {"format": "pt2", "files": {}, "error": "torch.export: no"}
    text = replace(card, figures={**card.figures, "exports": [written, failed]}).text()
    assert "| `openvino/a.xml` | 77 | int8 | 98.4% | in fp32: layers 2 |" in text
    assert '{"INFERENCE_PRECISION_HINT": "f32"}' in text
    assert "pt2" not in text
