"""What a job says of how its files hold, and how its step is cut, stopped and left out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from search.data.texts import LabelledTexts
from search.export.errors import ExportFailed
from search.robustness.report import MEASURES, Subject
from search.robustness.sample import Sample
from search.training.batches import TokenRows
from search.training.encoding import TextReader, load_rows, load_tokenizer
from service.database.models import Job
from service.steps.step_types import NewStep
from tests.service.helpers import job_of
from tests.workers.steps import tiny_job
from tests.workers.steps.conftest import WholeJob
from workers.context import JobContext
from workers.heartbeat import AbortReason, StepAborted
from workers.steps import robustness
from workers.steps.state import State


@pytest.fixture(scope="module")
def report(whole_job: WholeJob) -> dict[str, Any]:
    assert whole_job.job.result is not None
    return whole_job.job.result


def again(whole_job: WholeJob, *, rows: int = 24, **changes: Any) -> str:
    """A job that begins where the files of the whole one have been measured."""
    given = {**whole_job.step("robustness").input, **changes}
    spec = {**whole_job.spec, "robustness": {"rows": rows}}
    return whole_job.workshop.submit(spec, NewStep(kind="robustness", input=given))


def finished(whole_job: WholeJob, job_id: str) -> dict[str, Any]:
    job: Job = whole_job.workshop.run(job_id)
    assert job.state == "succeeded", job.reason_message
    assert job.result is not None
    return job.result


def test_every_delivered_file_has_every_measure(report: dict[str, Any]) -> None:
    for part in (report["quantized_only"], *report["targets"]):
        found = part["robustness"]
        assert found.keys() == MEASURES.keys()
        assert all(found.values())
        assert found["noise"]["num_rows"] == found["calibration"]["num_rows"] == 24
        assert found["bit_flips"]["num_rows"] == found["word_swaps"]["num_rows"] == 6
    unsearched = report["baseline"]["robustness"]
    assert unsearched["agreement"] is None, "it is the teacher"
    assert all(found for name, found in unsearched.items() if name != "agreement")


def test_figures_of_files_that_learnt_the_task_are_in_their_place(report: dict[str, Any]) -> None:
    for part in (report["quantized_only"], *report["targets"]):
        found = part["robustness"]
        assert found["noise"]["clean"] == found["calibration"]["accuracy"] > 0.7
        assert found["agreement"]["share"] > 0.7
        assert 0 <= found["agreement"]["divergence"] < 1
        assert 0 <= found["calibration"]["calibration_error"] < 0.5
        rates = [level["rate"] for level in found["bit_flips"]["levels"]]
        assert all(low < high for low, high in pairwise(rates))
        assert 0 <= found["word_swaps"]["survived"] <= 1
    noise = report["baseline"]["robustness"]["noise"]
    assert noise["levels"][-1]["quality"] < noise["clean"], "two words tell all, if well spelt"


def test_the_texts_that_are_changed_are_those_of_the_test_split(whole_job: WholeJob) -> None:
    state = State.parse(whole_job.step("robustness").input)
    blob = whole_job.workshop.store.path
    assert state.blobs.sample is not None
    sample = Sample.load(blob(state.blobs.sample))
    assert isinstance(sample.texts, LabelledTexts)
    reader = TextReader(load_tokenizer(blob(state.blobs.reader)), state.model_shape, 16)
    read, test = reader.read(sample.texts), load_rows(blob(state.blobs.test))
    assert isinstance(test, TokenRows)
    assert torch.equal(read.tokens, test.tokens)
    assert torch.equal(read.labels, test.labels)
    assert sample.vocabulary is not None
    assert set(tiny_job.OTHER) <= sample.vocabulary.counts.keys()


def test_the_figures_are_the_same_however_the_step_is_cut(
    whole_job: WholeJob, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = [step.kind for step in whole_job.workshop.steps(whole_job.job.id)]
    assert kinds.count("robustness") > 1, "a tenth of a second is not enough"
    assert kinds[-2:] == ["report", "conclude"]
    settings = whole_job.workshop.settings.model_copy(update={"step_seconds": 60.0})
    monkeypatch.setattr(whole_job.workshop._runner, "_settings", settings)
    job_id = again(whole_job)
    whole = finished(whole_job, job_id)
    assert [s.kind for s in whole_job.workshop.steps(job_id)].count("robustness") == 1
    for name in ("baseline", "quantized_only"):
        assert whole[name]["robustness"] == report[name]["robustness"]
    assert [t["robustness"] for t in whole["targets"]] == [
        t["robustness"] for t in report["targets"]
    ]


def test_no_rows_leave_it_out(whole_job: WholeJob) -> None:
    job_id = again(whole_job, rows=0)
    found = finished(whole_job, job_id)
    assert found["baseline"]["robustness"] is None
    assert [target["robustness"] for target in found["targets"]] == [None, None]
    kinds = [step.kind for step in whole_job.workshop.steps(job_id)]
    assert kinds == ["robustness", "report", "conclude"]


def test_a_job_that_kept_no_texts_is_reported_without(whole_job: WholeJob) -> None:
    blobs = {**whole_job.step("robustness").input["blobs"]}
    del blobs["sample"]
    found = finished(whole_job, again(whole_job, blobs=blobs))
    assert found["baseline"]["robustness"] is None


def test_a_figure_that_cannot_be_had_is_told_and_the_job_goes_on(
    whole_job: WholeJob, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Subject) -> None:
        raise ExportFailed("does not load")

    monkeypatch.setattr(robustness, "MEASURES", {**MEASURES, "bit_flips": refuse})
    job_id = again(whole_job)
    found = finished(whole_job, job_id)["baseline"]["robustness"]
    assert found["bit_flips"] == {"error": "does not load"}
    assert found["noise"] == report["baseline"]["robustness"]["noise"]
    told = [e for e in whole_job.workshop.events(job_id) if e.kind == "robustness"]
    assert {e.level for e in told} == {"warning"}
    assert len(told) == len({e.data["file"] for e in told}) > 1


def test_a_measure_that_kills_its_worker_is_given_up_alone(
    whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: Subject) -> None:
        raise MemoryError

    monkeypatch.setattr(robustness, "MEASURES", {**MEASURES, "calibration": die})
    found = finished(whole_job, again(whole_job))
    for part in (found["baseline"], found["quantized_only"], *found["targets"]):
        failed = {name for name, value in part["robustness"].items() if value and "error" in value}
        assert failed == {"calibration"}
        assert "given up" in part["robustness"]["calibration"]["error"]


def test_it_stops_between_two_rows(whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def check_abort(_: JobContext) -> None:
        asked.append(None)
        if len(asked) == 10:
            raise StepAborted(AbortReason.SHUTDOWN)

    monkeypatch.setattr(JobContext, "check_abort", check_abort)
    workshop, job_id = whole_job.workshop, again(whole_job)
    step = workshop.open_step(job_id)
    assert step is not None
    workshop.run_step(step)
    assert len(asked) == 10
    (again_open,) = workshop.steps(job_id)
    assert again_open.state == "ready"
    assert job_of(workshop.database, job_id).state == "running"
    finished(whole_job, job_id)
