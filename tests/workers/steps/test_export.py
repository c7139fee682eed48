"""Winners in further formats, from a job whose files are measured to what is downloaded."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from search.export.errors import ExportFailed
from search.export.external import external_file
from search.export.formats import FORMATS
from search.export.running import open_network
from service.database.models import Event, Job
from service.steps.step_types import NewStep
from tests.workers.steps.conftest import WholeJob
from workers.steps import export as exporting
from workers.steps import package


def exported(whole_job: WholeJob, formats: Sequence[str]) -> Job:
    """Another job that begins where the whole one's files were measured."""
    workshop = whole_job.workshop
    first = NewStep(kind="export", input=whole_job.step("report").input)
    job = workshop.run(workshop.submit({**whole_job.spec, "exports": list(formats)}, first))
    assert job.state == "succeeded", job.reason_message
    return job


def files_of(whole_job: WholeJob, job: Job, target: int | None = 0) -> dict[str, Path]:
    workshop = whole_job.workshop
    return {
        a.name: workshop.store.path(a.sha256)
        for a in workshop.artifacts(job.id)
        if a.target_index == target
    }


def told(whole_job: WholeJob, job: Job) -> list[Event]:
    return [e for e in whole_job.workshop.events(job.id) if e.kind == "export"]


def test_every_winner_is_delivered_in_every_format_that_was_asked_for(
    whole_job: WholeJob, tmp_path: Path
) -> None:
    job = exported(whole_job, list(FORMATS))
    steps = [s.kind for s in whole_job.workshop.steps(job.id) if s.kind != "robustness"]
    assert steps == [*["export"] * 2 * len(FORMATS), "report", "conclude"]
    report = json.loads(files_of(whole_job, job, None)["report.json"].read_text())
    for target in range(2):
        files = files_of(whole_job, job, target)
        records = report["targets"][target]["exports"]
        assert [record["format"] for record in records] == list(FORMATS)
        manifest = json.loads(files["manifest.json"].read_text())["files"]
        metrics = json.loads(files["metrics.json"].read_text())
        assert metrics["exports"] == records
        assert {"openvino", "nncf", "torch"} < metrics["versions"].keys()
        for record in records:
            assert record["error"] == ""
            assert record["agreement"] >= 0.95
            sizes = [manifest[name]["size_bytes"] for name in record["files"]]
            assert record["size_bytes"] == sum(sizes)
            for name in record["files"]:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(files[name], tmp_path / name)
            main = next(iter(record["files"]))
            assert open_network(tmp_path / main)
            assert f"| `{main}` |" in files["README.md"].read_text()
    assert all(event.level == "info" for event in told(whole_job, job))


def test_a_job_that_asks_for_none_has_no_step_for_them(whole_job: WholeJob) -> None:
    kinds = {step.kind for step in whole_job.workshop.steps(whole_job.job.id)}
    assert "export" not in kinds
    report = json.loads(files_of(whole_job, whole_job.job, None)["report.json"].read_text())
    assert [target["exports"] for target in report["targets"]] == [[], []]


def test_after_the_last_measured_file_come_the_formats(whole_job: WholeJob) -> None:
    workshop, verify = whole_job.workshop, whole_job.workshop.steps(whole_job.job.id)
    last = [step for step in verify if step.kind == "verify"][-1]
    first = NewStep(kind="verify", input=last.input)
    spec = {**whole_job.spec, "exports": ["pt2"]}
    job = workshop.run(workshop.submit(spec, first))
    assert job.state == "succeeded", job.reason_message
    assert [s.kind for s in workshop.steps(job.id)][:3] == ["verify", "export", "export"]
    assert "exported/model.pt2" in files_of(whole_job, job)


def test_a_worker_that_lacks_a_package_delivers_the_rest_and_names_the_extra(
    whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    job = exported(whole_job, ["openvino-int8", "onnx-fp16"])
    files = files_of(whole_job, job)
    assert "onnx/model_fp16.onnx" in files
    assert not [name for name in files if name.startswith("openvino/")]
    warnings = [e for e in told(whole_job, job) if e.level == "warning"]
    assert len(warnings) == 2
    assert "pip install 'snugnet[exports]'" in warnings[0].message
    missing, written = json.loads(files["metrics.json"].read_text())["exports"]
    assert "nncf is not installed" in missing["error"]
    assert written["error"] == ""
    assert "openvino" not in files["README.md"].read_text()


def test_what_a_converter_rejects_is_left_out_with_its_reason(
    whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reject(*_: Any) -> None:
        raise ExportFailed("openvino: no such operator")

    monkeypatch.setattr(exporting, "export", reject)
    job = exported(whole_job, ["openvino"])
    assert {e.level for e in told(whole_job, job)} == {"warning"}
    (record,) = json.loads(files_of(whole_job, job)["metrics.json"].read_text())["exports"]
    assert record["error"] == "openvino: no such operator"
    assert record["files"] == {}


def test_a_format_that_crashes_every_time_is_given_up_and_the_job_goes_on(
    whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def crash(*_: Any) -> None:
        tries.append(1)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(exporting, "export", crash)
    job = exported(whole_job, ["openvino"])
    assert len(tries) == 2 * exporting.MAX_TRIES
    (record,) = json.loads(files_of(whole_job, job)["metrics.json"].read_text())["exports"]
    assert "given up" in record["error"]


def test_a_network_whose_weights_need_a_second_file_is_not_sent_to_a_device(
    whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = package.export_onnx

    def large(*args: Any, **options: Any) -> Path:
        path = real(*args, **options)
        external_file(path).write_bytes(b"weights")
        return path

    monkeypatch.setattr(package, "export_onnx", large)
    first = NewStep(kind="package", input=whole_job.step("package").input)
    workshop = whole_job.workshop
    job = workshop.run(workshop.submit(whole_job.spec, first))
    assert (job.state, job.reason_code) == ("failed", "too_large")
