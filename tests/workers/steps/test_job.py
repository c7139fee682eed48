"""What a finished job leaves behind: its report, its files, its records."""

from __future__ import annotations

import hashlib
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from sqlalchemy import select
from tokenizers import Tokenizer

from search.export import load_subnet
from search.model.transformer import Batch
from search.pareto import ParetoFront
from search.space import SubnetConfig
from service.artifacts.gc import collect
from service.artifacts.signing_keys import list_signing_keys
from service.artifacts.verifying import verify_folder
from service.database.models import BlobReference, BlobRow, UploadFile
from tests.workers.steps.conftest import WholeJob
from workers.steps.search import to_candidate

UNSEARCHED_FIELDS = {
    "onnx",
    "sha256",
    "quality",
    "quality_interval",
    "p50_ms",
    "p95_ms",
    "size_bytes",
    "params",
    "robustness",
}
PREDICTOR_FIELDS = {
    "num_measurements",
    "mape",
    "within_5",
    "within_10",
    "spearman",
    "spearman_equal_depth",
    "depth_only_mape",
}
TARGET_FIELDS = {
    *("budget_ms", "predicted_ms", "p50_ms", "p95_ms", "quality", "quality_kept", "size_bytes"),
    *("params", "speedup", "onnx", "sha256", "repairs", "stages", "robustness"),
}
TARGET_FILES = {
    *("tokenizer.json", "model.safetensors", "config.json", "modeling_snugnet.py"),
    *("metrics.json", "README.md", "manifest.json", "manifest.sig"),
}


@pytest.fixture(scope="module")
def report(whole_job: WholeJob) -> dict[str, Any]:
    assert whole_job.job.state == "succeeded", whole_job.job.reason_message
    assert whole_job.job.result is not None
    return whole_job.job.result


@pytest.fixture(scope="module")
def stored(whole_job: WholeJob) -> dict[str, Path]:
    """Path of each artifact by the name that the report knows it by."""
    return {
        name if index is None else f"target-{index}/{name}": whole_job.workshop.store.path(sha256)
        for index, name, sha256 in (
            (a.target_index, a.name, a.sha256)
            for a in whole_job.workshop.artifacts(whole_job.job.id)
        )
    }


def answer(onnx: Path, tokenizer: Path, text: str) -> np.ndarray:
    encoded = Tokenizer.from_file(str(tokenizer)).encode(text)
    feed = {
        "input_ids": np.array([encoded.ids]),
        "attention_mask": np.array([encoded.attention_mask]),
    }
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], feed)
    assert isinstance(logits, np.ndarray)
    return logits


def test_the_report_has_every_promised_field(report: dict[str, Any]) -> None:
    assert {"device", "workload", "predictor", "search", "targets"} <= report.keys()
    assert report["baseline"].keys() >= UNSEARCHED_FIELDS
    assert report["quantized_only"].keys() >= UNSEARCHED_FIELDS
    assert report["predictor"].keys() >= PREDICTOR_FIELDS
    assert report["search"].keys() >= {"evaluations", "hypervolume", "baselines", "front"}
    assert report["search"]["baselines"]["random"].keys() == {"hypervolume", "front"}
    assert report["metric"] == "accuracy"
    for point in report["search"]["front"]:
        assert point.keys() >= {"latency_ms", "quality", "subnet"}
    assert len(report["targets"]) == 2
    for target in report["targets"]:
        assert target.keys() >= TARGET_FIELDS
    json.dumps(report, allow_nan=False)


def test_a_promise_is_kept_by_the_measured_median_of_the_exported_file(
    report: dict[str, Any],
) -> None:
    for target in report["targets"]:
        assert target["is_met"]
        assert target["p50_ms"] <= target["budget_ms"]
        assert target["p50_ms"] <= target["p95_ms"]
        unsearched_ms = report["baseline"]["p50_ms"]
        assert target["budget_ms"] == pytest.approx(target["budget_ratio"] * unsearched_ms)


def test_the_task_was_learnt_and_the_winners_kept_it(report: dict[str, Any]) -> None:
    assert report["data"]["test_rows"] == 60
    assert report["baseline"]["quality"] > 0.9
    for target in report["targets"]:
        assert target["quality_kept"] > 0.8
        assert target["quality_kept"] == pytest.approx(
            target["quality"] / report["baseline"]["quality"]
        )


def test_every_quality_on_the_test_split_has_an_interval_around_it(report: dict[str, Any]) -> None:
    for judged in (report["baseline"], report["quantized_only"], *report["targets"]):
        within = judged["quality_interval"]
        assert 0 <= within["lower"] <= judged["quality"] <= within["upper"] <= 1
        assert within["upper"] - within["lower"] > 0.02, "60 rows tell no more"


def test_stages_of_a_target_follow_each_other(report: dict[str, Any]) -> None:
    for target in report["targets"]:
        names = [stage["stage"] for stage in target["stages"]]
        if "unsearched" in names:  # asked of where it may keep the budget by itself
            names.remove("unsearched")
        assert names[:3] == ["search", "shortlist", "distill"]
        assert names[3] in ("quantize", "export")
        assert names[4:] == ["measure", "report"]
        assert target["stages"][-1]["quality"] == target["quality"]


def test_the_search_found_a_front_of_networks_of_its_space(
    whole_job: WholeJob, report: dict[str, Any]
) -> None:
    evaluations = whole_job.workshop.evaluations(whole_job.job.id, "search")
    assert report["search"]["evaluations"] == len(evaluations) == 12
    assert len(whole_job.workshop.evaluations(whole_job.job.id, "random")) == 12
    front = report["search"]["front"]
    assert len(front) == len(list(ParetoFront.of(to_candidate(e) for e in evaluations)))
    for faster, slower in pairwise(front):
        assert faster["latency_ms"] < slower["latency_ms"]
        assert faster["quality"] < slower["quality"]
    found = report["search"]
    assert all(f["hypervolume"] >= 0 for f in (found, *found["baselines"].values()))


def test_artifacts_are_stored_under_their_hash(whole_job: WholeJob) -> None:
    artifacts = whole_job.workshop.artifacts(whole_job.job.id)
    for artifact in artifacts:
        content = whole_job.workshop.store.path(artifact.sha256).read_bytes()
        assert hashlib.sha256(content).hexdigest() == artifact.sha256
        assert len(content) == artifact.size_bytes
    for index in (0, 1):
        names = {a.name for a in artifacts if a.target_index == index}
        assert names - {"onnx/model.onnx", "onnx/model_quantized.onnx"} == TARGET_FILES
    assert {"report.json", "pareto.png"} < {a.name for a in artifacts if a.target_index is None}


def test_every_exported_file_loads_and_answers(
    report: dict[str, Any], stored: dict[str, Path]
) -> None:
    parts = [report["baseline"], report["quantized_only"], *report["targets"]]
    for part in parts:
        path = stored[part["onnx"]]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == part["sha256"]
        tokenizer = stored["target-0/tokenizer.json"]
        good = answer(path, tokenizer, "a lovely story")
        bad = answer(path, tokenizer, "the plot was dull")
        assert good.shape == (1, 2)
        assert np.isfinite([good, bad]).all()
        assert good.argmax() == report["data"]["labels"].index("good")
        assert bad.argmax() == report["data"]["labels"].index("bad")


def downloaded(stored: dict[str, Path], index: int, folder: Path) -> Path:
    """The files of a target by their names, as a client puts them."""
    prefix = f"target-{index}/"
    for name, path in stored.items():
        if name.startswith(prefix):
            place = folder / name.removeprefix(prefix)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    return folder


@torch.no_grad()
def test_a_downloaded_folder_answers_as_the_exported_file(
    report: dict[str, Any], stored: dict[str, Path], tmp_path: Path
) -> None:
    for index, target in enumerate(report["targets"]):
        folder = downloaded(stored, index, tmp_path / str(index))
        model, subnet = load_subnet(folder)
        assert subnet == SubnetConfig.from_dict(target["subnet"]).renumbered()
        assert sum(p.numel() for p in model.parameters()) == target["params"]
        config = json.loads((folder / "config.json").read_text())
        assert config["id2label"] == dict(zip("01", report["data"]["labels"], strict=True))
        onnx = stored[target["onnx"]]
        for text in ("a lovely story", "the plot was dull"):
            found = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text)
            batch = Batch(torch.tensor([found.ids]), torch.tensor([found.attention_mask]))
            expected = answer(onnx, folder / "tokenizer.json", text)
            rounding = 1e-4 if subnet.precision == "fp32" else 0.2
            np.testing.assert_allclose(model(batch).logits, expected, atol=rounding)


def test_transformers_answers_as_a_downloaded_network(
    report: dict[str, Any],
    stored: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    for index in range(len(report["targets"])):
        folder = downloaded(stored, index, tmp_path / str(index))
        model, subnet = load_subnet(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        auto = transformers.AutoModelForSequenceClassification
        theirs = auto.from_pretrained(folder, trust_remote_code=True).eval()
        given = tokenizer("a lovely story", return_tensors="pt")
        batch = Batch(given["input_ids"], given["attention_mask"])
        with torch.no_grad():
            found = theirs(**given).logits
            expected = model(batch, subnet.with_precision("fp32")).logits
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_manifest_is_of_all_that_is_downloaded_and_signed(
    whole_job: WholeJob, stored: dict[str, Path], tmp_path: Path
) -> None:
    with whole_job.workshop.database.read() as session:
        known = {row.public_key for row in list_signing_keys(session)}
    for index in (0, 1):
        for name, path in stored.items():
            if name.startswith(f"target-{index}/"):
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, tmp_path / name)
        folder = tmp_path / f"target-{index}"
        found = verify_folder(folder, known)
        assert (found.problems, found.is_known_key) == ((), True)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert len(manifest["files"]) == found.num_files == len(list_files(folder)) - 2
        metrics = json.loads((folder / "metrics.json").read_text())
        assert manifest["job"] == {"id": whole_job.job.id, "seed": whole_job.job.seed}
        assert manifest["target"] == index
        assert manifest["metrics"].items() <= metrics.items()
        assert {"p95_ms", "quality", "is_met"} < manifest["metrics"].keys()
        assert manifest["provenance"]["measurement_job"] == metrics["measurement_job"]


def list_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_metrics_hold_the_lineage(
    whole_job: WholeJob, report: dict[str, Any], stored: dict[str, Path]
) -> None:
    for index, target in enumerate(report["targets"]):
        metrics = json.loads(stored[f"target-{index}/metrics.json"].read_text())
        assert metrics["sha256"] == target["sha256"]
        assert metrics["stages"] == target["stages"]
        assert metrics["robustness"] == target["robustness"]
        assert metrics["job"] == {
            "id": whole_job.job.id,
            "spec": whole_job.job.spec,
            "seed": whole_job.job.seed,
        }
        assert metrics["data"]["sha256"] == report["data"]["sha256"]
        assert metrics["measurement_job"] in {
            job.id for job in whole_job.workshop.measuring_jobs(whole_job.job.id)
        }
        assert {"torch", "onnxruntime", "optuna"} < metrics["versions"].keys()
        card = stored[f"target-{index}/README.md"].read_text()
        assert f"{target['p50_ms']:.3f}" in card


def test_the_report_is_an_artifact_too(report: dict[str, Any], stored: dict[str, Path]) -> None:
    assert json.loads(stored["report.json"].read_text()) == report
    assert stored["pareto.png"].read_bytes().startswith(b"\x89PNG")


def test_training_was_cut_into_slices_whose_checkpoints_are_gone(whole_job: WholeJob) -> None:
    steps = whole_job.workshop.steps(whole_job.job.id)
    for kind in ("teacher", "supernet", "distill"):
        assert sum(step.kind == kind for step in steps) > 1
    for step in steps:
        checkpoint = step.input.get("checkpoint") or {}
        for sha256 in filter(None, checkpoint.values()):
            assert not whole_job.workshop.store.exists(sha256)


def test_what_is_stored_is_exactly_what_something_names(whole_job: WholeJob) -> None:
    workshop = whole_job.workshop
    stored = {blob.sha256: blob.size_bytes for blob in workshop.store.list_blobs()}
    with workshop.database.read() as session:
        needed = set(session.scalars(select(BlobReference.sha256)))
        uploaded = set(session.scalars(select(UploadFile.sha256)))
        arrived = {row.sha256: row.size_bytes for row in session.scalars(select(BlobRow))}
    assert set(stored) == needed | uploaded
    assert {sha256: stored[sha256] for sha256 in arrived} == arrived
    report = collect(workshop.database, workshop.store, workshop.settings)
    assert (report.classes, report.missing) == ({}, [])


def test_stages_are_told_in_order_and_each_once(whole_job: WholeJob) -> None:
    told = [e.message for e in whole_job.workshop.events(whole_job.job.id) if e.kind == "stage"]
    assert told == ["prepare", "onboard", "teacher", "supernet", "search", "finish", "report"]


def test_nothing_is_left_in_the_scratch_folder(whole_job: WholeJob) -> None:
    assert list(whole_job.workshop.settings.scratch_dir.iterdir()) == []
