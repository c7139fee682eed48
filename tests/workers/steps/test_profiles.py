"""One search for several devices, workloads and runtimes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from predictors.spec import MeasuringSpec
from service.database.models import Job
from tests.workers.steps.conftest import OpenWorkshop, quietly, submitted
from tests.workers.steps.in_process import Workshop

TARGETS = [
    {"budget_ratio": 1.0, "workload": {"seq_len": 32, "runtime": "auto"}},
    {"budget_ratio": 1.0, "workload": {"seq_len": 16}},
]


class Session:
    """A finished job for two workloads, and what the device was asked meanwhile."""

    def __init__(self, workshop: Workshop, files: dict[str, list[Path]]) -> None:
        self.specs: list[MeasuringSpec] = []
        measure = quietly(workshop.measure_here)

        def note(spec: MeasuringSpec) -> dict[str, Any]:
            self.specs.append(spec)
            return measure(spec)

        workshop.measure = note
        self.job: Job = workshop.run(workshop.submit(submitted(workshop, files, targets=TARGETS)))
        (report,) = [a for a in workshop.artifacts(self.job.id) if a.name == "report.json"]
        self.report = json.loads(workshop.store.path(report.sha256).read_text())
        self.runtimes = [p["workload"]["runtime"] for p in self.report["profiles"]]


@pytest.fixture(scope="module")
def finished(open_workshop: OpenWorkshop, files: dict[str, list[Path]]) -> Iterator[Session]:
    with open_workshop() as workshop:
        yield Session(workshop, files)


def test_every_runtime_of_an_open_target_is_learnt_once(finished: Session) -> None:
    assert finished.job.state == "succeeded", finished.job.reason_message
    assert finished.runtimes == ["onnxruntime", "openvino", "onnxruntime"]
    assert [p["workload"]["seq_len"] for p in finished.report["profiles"]] == [32, 32, 16]
    learnt = [s.workload for s in finished.specs if s.reference.blob is None]
    assert {(w.runtime, w.seq_len) for w in learnt} == {
        ("onnxruntime", 32),
        ("openvino", 32),
        ("onnxruntime", 16),
    }
    assert all(p["predictor"]["mape"] for p in finished.report["profiles"])


def test_a_winner_is_measured_where_it_was_chosen_to_run(finished: Session) -> None:
    for index, target in enumerate(finished.report["targets"]):
        assert target["is_met"]
        allowed = (0, 1) if index == 0 else (2,)
        assert target["profile"] in allowed
        profile = finished.report["profiles"][target["profile"]]
        assert target["workload"] == profile["workload"]
        assert profile["baseline"]["p50_ms"] > 0
        if target["subnet"]["precision"] == "int8":
            assert profile["workload"]["runtime"] == "onnxruntime"
    measured = {
        (s.workload.runtime, s.workload.seq_len) for s in finished.specs if s.reference.blob
    }
    chosen = [t["workload"] for t in finished.report["targets"]]
    assert measured == {(w["runtime"], w["seq_len"]) for w in chosen}
