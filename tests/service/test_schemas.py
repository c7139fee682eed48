from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.devices.device_schemas import NewDevice
from service.schemas import Job, JobState
from service.uploads.upload_schemas import NewUpload


@pytest.mark.parametrize(
    "name", ["../x", ".hidden", "a/../b", "a/.b", "/a", "a//b", "", "a\nb", "a" * 300]
)
def test_upload_names_cannot_leave_their_folder(name: str) -> None:
    file = {"name": name, "size_bytes": 1, "sha256": "0" * 64}
    with pytest.raises(ValidationError):
        NewUpload.model_validate({"kind": "model", "files": [file]})


def test_device_names_are_plain() -> None:
    with pytest.raises(ValidationError):
        NewDevice.model_validate({"name": "this cpu", "identity": {}})


def test_an_answer_of_a_newer_server_is_understood() -> None:
    job = Job.model_validate(
        {"id": "job_1", "name": "", "state": "running", "spec": {}, "created_at": 1, "new": True}
    )
    assert job.state is JobState.RUNNING
    assert not job.state.is_final
