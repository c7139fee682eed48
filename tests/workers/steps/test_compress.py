"""A job with a recipe: stages kept or not, what is delivered, and the same after any kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from tokenizers import Tokenizer

from search.compress.network import Compressed
from search.errors import TrainingDiverged
from search.export import load_subnet
from search.model.fresh import write_fresh_gpt2
from search.robustness.report import MEASURES
from service.database.models import Job, Step
from service.steps.step_types import NewStep
from tests.workers.steps import tiny_job
from tests.workers.steps.conftest import OpenWorkshop, quietly
from tests.workers.steps.in_process import Recorded, Workshop
from tests.workers.steps.test_repeat import Killer, content
from tests.workers.steps.test_tasks import BRIEF, SEARCH, run_job, sentences
from workers.steps import compress

UNUSED = tuple(f"unused{i}" for i in range(40))
STAGES: list[dict[str, Any]] = [
    {"kind": "trim-vocabulary"},
    {"kind": "prune-and-distill", "keep": 0.6, "epochs": 1, "learning_rate": 1e-3},
    {"kind": "sparsify", "sparsity": 0.5, "epochs": 0.5},
    {"kind": "distill", "epochs": 0.5, "learning_rate": 1e-3, "attention": 0.5},
    {"kind": "quantize", "format": "int8"},
]
RECIPE = {"version": 1, "stages": STAGES, "cost": "size_bytes", "max_loss": 0.2}


@dataclass(frozen=True, slots=True)
class Delivered:
    workshop: Workshop
    job: Job
    files: dict[str, list[Path]]
    folder: Path
    device: Recorded

    @property
    def report(self) -> dict[str, Any]:
        assert self.job.result is not None
        return self.job.result

    @property
    def target(self) -> dict[str, Any]:
        found: dict[str, Any] = self.report["targets"][0]
        return found

    def stage(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any]
        (found,) = (s for s in self.target["recipe"]["stages"] if s["stage"]["kind"] == kind)
        return found


def write_files(folder: Path) -> dict[str, list[Path]]:
    """A model that knows forty words which no text has."""
    with pytest.MonkeyPatch.context() as patch:
        words = (*tiny_job.SPECIAL, *UNUSED, *tiny_job.WORDS[len(tiny_job.SPECIAL) :])
        patch.setattr(tiny_job, "WORDS", words)
        model = tiny_job.write_model(folder / "model", vocab_size=len(words))
    added = {"0": {"content": "[PAD]"}, str(len(words) - 1): {"content": words[-1]}}
    (model / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    data = tiny_job.write_data(folder / "rows.jsonl")
    return {"model": sorted(model.iterdir()), "dataset": [data]}


def spec_of(workshop: Workshop, files: dict[str, list[Path]], **parts: Any) -> dict[str, Any]:
    spec = tiny_job.spec(
        workshop.upload("model", files["model"]),
        workshop.upload("dataset", files["dataset"]),
        **{
            "targets": [{"budget_ratio": 1.0, "workload": {"seq_len": 16}}],
            "search": SEARCH,
            "space": {"preset": "small", "precision": ["fp32"]},
            "compress": RECIPE,
            "exports": ["onnx-fp16"],
            **parts,
        },
    )
    spec["training"] |= BRIEF
    return spec


@pytest.fixture(scope="module")
def delivered(
    open_workshop: OpenWorkshop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Delivered]:
    folder = tmp_path_factory.mktemp("recipe")
    files = write_files(folder)
    with open_workshop() as workshop:
        device = workshop.measure = Recorded(quietly(workshop.measure_here))
        job = workshop.run(workshop.submit(spec_of(workshop, files)))
        assert job.state == "succeeded", job.reason_message
        found = folder / "delivered"
        for artifact in workshop.artifacts(job.id):
            if artifact.target_index == 0:
                path = found / artifact.name
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(workshop.store.path(artifact.sha256), path)
        yield Delivered(workshop, job, files, found, device)


def test_every_stage_is_reported_with_all_figures_before_and_after(delivered: Delivered) -> None:
    stages = delivered.target["recipe"]["stages"]
    assert [s["stage"]["kind"] for s in stages] == [s["kind"] for s in STAGES]
    before = stages[0]["before"]
    for stage in stages:
        assert stage["before"] == before
        before = stage["after"] if stage["is_kept"] else before
        for figures in (stage["before"], stage["after"]):
            assert {"quality", "latency_ms", "size_bytes", "num_params", "flops"} < figures.keys()
            assert figures["peak_memory_bytes"] > 0
            assert figures["latency_ms"] > 0
            assert figures["file_bytes"] > 0
            assert figures["robustness"].keys() == MEASURES.keys()
            assert all(found and "error" not in found for found in figures["robustness"].values())


def test_stages_that_lower_the_cost_are_kept_and_one_that_does_not_is_taken_back(
    delivered: Delivered,
) -> None:
    trimmed = delivered.stage("trim-vocabulary")
    assert trimmed["is_kept"]
    assert trimmed["after"]["num_params"] < trimmed["before"]["num_params"]
    pruned = delivered.stage("prune-and-distill")
    assert pruned["is_kept"]
    assert pruned["after"]["flops"] < 0.8 * pruned["before"]["flops"]
    assert pruned["after"]["latency_ms"] < pruned["before"]["latency_ms"]
    sparse = delivered.stage("sparsify")
    assert not sparse["is_kept"]
    assert "neither lowers size_bytes" in sparse["reason"]
    assert sparse["after"]["num_zeros"] > 0, "what it does not buy is shown"
    rounded = delivered.stage("quantize")
    assert rounded["is_kept"]
    assert rounded["after"]["file_bytes"] < rounded["before"]["file_bytes"]
    assert delivered.target["zeros"] == 0
    told = [e for e in delivered.workshop.events(delivered.job.id) if e.kind == "compressed"]
    assert len(told) == len(STAGES)
    assert [s["stage"] for s in delivered.target["stages"]].count("quantize") == 2


def test_the_file_the_tokenizer_and_the_folder_are_the_compressed_networks(
    delivered: Delivered,
) -> None:
    folder, target = delivered.folder, delivered.target
    num_words = len(tiny_job.WORDS)
    assert target["vocab_size"] < num_words + len(UNUSED)
    assert target["precision"] == "int8"
    path = folder / "onnx/model_quantized.onnx"
    table = next(
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
        if tensor.name.startswith("embeddings.word") and len(tensor.dims) == 2
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert len(table) == tokenizer.get_vocab_size() == target["vocab_size"]
    model, subnet = load_subnet(folder)
    assert model.shape.vocab_size == target["vocab_size"]
    assert list(subnet.num_heads) == target["subnet"]["num_heads"]
    (further,) = target["exports"]
    assert not further["error"]
    assert (folder / "onnx/model_fp16.onnx").stat().st_size == further["size_bytes"]
    described = json.loads((folder / "tokenizer_config.json").read_text())
    last = max(described["added_tokens_decoder"], key=int)
    assert tokenizer.id_to_token(int(last)) == tiny_job.WORDS[-1]
    session = onnxruntime.InferenceSession(path)
    names = json.loads((folder / "config.json").read_text())["id2label"]
    right = 0
    lines = delivered.files["dataset"][0].read_text().splitlines()[:60]
    for row in map(json.loads, lines):
        text = tokenizer.encode(row["text"])
        feed = {"input_ids": [text.ids], "attention_mask": [text.attention_mask]}
        (logits,) = session.run(None, {k: np.array(v) for k, v in feed.items()})
        right += names[str(logits[0].argmax())] == row["label"]
    assert right / len(lines) > target["quality"] - 0.2


def test_the_card_has_a_table_of_stages_and_one_of_robustness(delivered: Delivered) -> None:
    text = (delivered.folder / "README.md").read_text()
    assert "## Compression" in text
    assert "| sparsify | no |" in text
    assert "neither lowers size_bytes nor raises quality" in text
    assert "| trim-vocabulary | yes |" in text
    assert "## How its answers hold" in text
    assert "|  | this network | unsearched model | the same in int8 |" in text
    share = delivered.target["robustness"]["agreement"]["share"]
    assert f"| agreement with the unsearched model | {share:.1%} | - |" in text
    assert "right answers that survive word swaps" in text


def test_a_job_whose_every_step_was_killed_in_slices_is_the_same_job(
    delivered: Delivered, open_workshop: OpenWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer = Killer(monkeypatch)

    def run_step(step: Step) -> None:
        if step.kind == "compress":
            killer.run(workshop, step)
        else:
            workshop.run_step(step)

    with open_workshop(delivered.device, step_seconds=0.05) as workshop:
        job = workshop.run(workshop.submit(spec_of(workshop, delivered.files)), run_step)
        assert job.state == "succeeded", job.reason_message
        assert job.result is not None
        assert killer.deaths["finish"] > len(STAGES) + 2
        assert job.result["targets"] == delivered.report["targets"]
        assert content(workshop.artifacts(job.id)) == content(
            delivered.workshop.artifacts(delivered.job.id)
        )


@dataclass(frozen=True, slots=True)
class Again:
    """Another job, from where the winner had been distilled."""

    workshop: Workshop
    job: Job

    @classmethod
    def of(cls, delivered: Delivered, compress_: Any) -> Again:
        workshop = delivered.workshop
        step = next(s for s in workshop.steps(delivered.job.id) if s.kind == "compress")
        spec = spec_of(workshop, delivered.files, compress=compress_) | {"robustness": {"rows": 0}}
        job = workshop.run(workshop.submit(spec, NewStep(kind="compress", input=step.input)))
        assert job.state == "succeeded", job.reason_message
        return cls(workshop, job)

    @property
    def target(self) -> dict[str, Any]:
        assert self.job.result is not None
        found: dict[str, Any] = self.job.result["targets"][0]
        return found

    @property
    def stages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.target["recipe"]["stages"]
        return found

    def text(self, name: str) -> str:
        (sha256,) = (a.sha256 for a in self.workshop.artifacts(self.job.id) if a.name == name)
        return self.workshop.store.path(sha256).read_text()


@pytest.mark.parametrize(
    ("format_", "file"), [("fp16", "model_fp16.onnx"), ("int4", "model_q4.onnx")]
)
def test_halves_and_four_bits_reach_the_file(
    delivered: Delivered, format_: str, file: str
) -> None:
    stages = {"stages": [{"kind": "quantize", "format": format_}], "max_loss": 0.1}
    again = Again.of(delivered, stages)
    (stage,) = again.stages
    assert stage["is_kept"]
    assert again.target["precision"] == format_
    assert again.target["onnx"].endswith(file)
    assert stage["after"]["file_bytes"] < 0.8 * stage["before"]["file_bytes"]
    assert stage["before"]["robustness"] is None, "the job asks for none"
    assert f"they were rounded to {format_}, as in the file above" in again.text("README.md")


def test_what_fell_too_low_and_was_not_made_up_for_is_taken_back(delivered: Delivered) -> None:
    stages = [
        {"kind": "factorize", "rank": 0.1},
        {"kind": "distill", "epochs": 0.01, "learning_rate": 1e-9},
    ]
    again = Again.of(delivered, {"stages": stages, "max_loss": 0.0})
    narrow, taught = again.stages
    assert narrow["after"]["quality"] < narrow["before"]["quality"]
    assert not narrow["is_kept"]
    assert narrow["reason"] == compress.TAKEN_BACK
    assert taught["before"] == narrow["after"], "it was tried on what was left"
    assert not taught["is_kept"]
    assert again.target["params"] == narrow["before"]["num_params"]


def test_a_stage_that_would_break_the_budget_is_taken_back(
    delivered: Delivered, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slower_in_int8(network: Compressed) -> float:
        return 1e6 if network.subnet.precision == "int8" else 0.001

    monkeypatch.setattr(compress, "_latency_of", lambda *_: slower_in_int8)
    again = Again.of(delivered, {"stages": [{"kind": "quantize"}], "max_loss": 1.0})
    (stage,) = again.stages
    assert not stage["is_kept"]
    assert stage["reason"].startswith("1000000.000 ms are more than the ")
    assert again.target["precision"] == "fp32"


def test_a_stage_that_fails_is_left_out_with_its_reason(
    delivered: Delivered, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: Any) -> None:
        raise TrainingDiverged(3, "loss")

    monkeypatch.setattr(compress, "apply_stage", diverge)
    again = Again.of(delivered, [{"kind": "distill"}])
    (stage,) = again.stages
    assert stage["after"] is None
    assert not stage["is_kept"]
    assert "training step 3" in stage["reason"]
    assert "| distill | no |" in again.text("README.md")


def test_a_stage_that_kills_its_worker_is_given_up_alone(
    delivered: Delivered, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(compress, "apply_stage", die)
    again = Again.of(delivered, [{"kind": "prune"}])
    (stage,) = again.stages
    assert "given up" in stage["reason"]
    assert again.target["is_met"]


def test_a_factorized_network_has_its_onnx_and_says_why_there_is_no_folder(
    delivered: Delivered,
) -> None:
    stages = [{"kind": "factorize", "rank": 0.25}]
    again = Again.of(delivered, {"stages": stages, "max_loss": 1.0})
    (stage,) = again.stages
    assert stage["is_kept"], stage["reason"]
    assert stage["after"]["latency_ms"] is None, "nothing predicts a narrower word table"
    assert stage["after"]["num_params"] < stage["before"]["num_params"]
    card = again.text("README.md")
    assert "There is no folder of weights: a word table of a lower rank can be" in card
    names = {a.name for a in again.workshop.artifacts(again.job.id) if a.target_index == 0}
    assert "onnx/model.onnx" in names
    assert "config.json" not in names


def wordy_gpt2(folder: Path) -> Path:
    """It has been made for texts that the data have none of."""
    texts = [" ".join(words) for words in sentences(60)] + 60 * ["zebras quarrel by xylophone"]
    sizes = {"vocab_size": 340, "num_layers": 3, "embed_dim": 32, "num_heads": 4}
    write_fresh_gpt2(folder / "model", texts, max_seq_len=32, **sizes)
    return folder / "model"


@pytest.mark.parametrize(
    ("task", "stages"),
    [
        ("language-modelling", [{"kind": "trim-vocabulary"}, {"kind": "prune", "keep": 0.8}]),
        ("token-classification", [{"kind": "trim-vocabulary"}]),
        ("image-classification", [{"kind": "prune", "keep": 0.8}, {"kind": "quantize"}]),
    ],
)
def test_other_tasks_take_recipes(
    task: str, stages: list[dict[str, Any]], open_workshop: OpenWorkshop, tmp_path: Path
) -> None:
    with open_workshop() as workshop:
        job = run_job(
            workshop,
            task,
            tmp_path,
            write_model=wordy_gpt2 if task == "language-modelling" else None,
            compress={"stages": stages, "max_loss": 5.0},
        )
        assert job.result is not None
        (target,) = job.result["targets"]
        for stage in target["recipe"]["stages"]:
            assert stage["after"] is not None, stage["reason"]
            failed = [f for f in stage["after"]["robustness"].values() if f and "error" in f]
            assert not failed
        assert target["recipe"]["stages"][0]["is_kept"]
        if task == "language-modelling":
            assert target["vocab_size"] < 340
            trimmed = target["recipe"]["stages"][0]["after"]
            assert trimmed["latency_ms"] is None, "its head says fewer words than the predictor's"
            assert trimmed["robustness"]["agreement"] is None, "their words are not the same"
