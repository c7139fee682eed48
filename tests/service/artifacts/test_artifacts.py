from __future__ import annotations

from service.artifacts import artifacts
from service.database.db import Database
from service.steps.step_types import NewArtifact
from tests.service.helpers import create_job

SHA256 = "ab" * 32


def test_artifacts_are_listed_by_target_and_name(database: Database) -> None:
    job_id = create_job(database)
    places = [(1, "model.onnx"), (0, "model.onnx"), (None, "report.json"), (0, "README.md")]
    new = [
        NewArtifact(
            name=name, sha256=SHA256, size_bytes=1, media_type="text/plain", target_index=target
        )
        for target, name in places
    ]
    with database.write() as session:
        artifacts.record_artifacts(session, job_id, new)
    with database.read() as session:
        found = artifacts.list_artifacts(session, job_id)
        same = artifacts.get_artifact(session, found[0].id)
    assert [(a.target_index, a.name) for a in found] == [
        (None, "report.json"),
        (0, "README.md"),
        (0, "model.onnx"),
        (1, "model.onnx"),
    ]
    assert same is not None
    assert same.name == "report.json"
