"""Files of winners where a job's upload or its family is out of the ordinary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from search.errors import InvalidInput
from service.steps.step_types import NewStep
from tests.workers.steps import tiny_job
from tests.workers.steps.conftest import WholeJob
from workers.steps import artifacts


def reported(whole_job: WholeJob, **parts: Any) -> tuple[str, dict[str, Path]]:
    """Another job that only reports what the whole one found: the files of its first target."""
    workshop = whole_job.workshop
    first = NewStep(kind="report", input=whole_job.step("report").input)
    job = workshop.run(workshop.submit({**whole_job.spec, **parts}, first))
    assert job.state == "succeeded", job.reason_message
    return job.id, {
        a.name: workshop.store.path(a.sha256)
        for a in workshop.artifacts(job.id)
        if a.target_index == 0
    }


def test_a_model_that_comes_with_a_card_and_a_tokenizer_config_hands_them_on(
    whole_job: WholeJob, tmp_path: Path
) -> None:
    special = {"bos_token_id": 2, "eos_token_id": [3], "pad_token_id": 50256}
    folder = tiny_job.write_model(tmp_path / "model", _name_or_path="someone/tiny", **special)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    upload = whole_job.workshop.upload("model", sorted(folder.iterdir()))
    _, files = reported(whole_job, model={"upload": upload})
    assert files["tokenizer_config.json"].read_text() == '{"model_max_length": 64}'
    assert "tokenizer_config.json" in json.loads(files["manifest.json"].read_text())["files"]
    config = json.loads(files["config.json"].read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (2, [3])
    assert "pad_token_id" not in config, "no token of this vocabulary"
    card = files["README.md"].read_text()
    assert "Base model: someone/tiny. Its licence: mit." in card


def test_a_network_that_no_folder_can_hold_is_delivered_as_onnx(
    whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise InvalidInput("family", "folders of it can be read, not written")

    monkeypatch.setattr(artifacts, "write_model", refuse)
    job_id, files = reported(whole_job)
    assert not {"config.json", "model.safetensors", "modeling_snugnet.py"} & files.keys()
    assert {"tokenizer.json", "metrics.json", "README.md", "manifest.json"} < files.keys()
    told = [e for e in whole_job.workshop.events(job_id) if e.kind == "folder"]
    assert len(told) == 2
    assert all(e.level == "warning" and "can be read, not written" in e.message for e in told)
