from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.ids import new_id
from service.settings import Settings


def test_places_default_to_the_data_folder(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path}/snugnet.db"
    assert settings.broker_url == f"redis+socket://{tmp_path}/valkey.sock"
    assert settings.blobs_dir == tmp_path / "blobs"


def test_the_environment_sets_every_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNUGNET_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SNUGNET_LEASE_SECONDS", "12")
    monkeypatch.setenv("SNUGNET_STEP_HANDLERS", '{"prepare": "mine:run"}')
    settings = Settings()
    assert (settings.data_dir, settings.lease_seconds) == (tmp_path, 12.0)
    assert settings.step_handlers == {"prepare": "mine:run"}


def test_a_lease_must_outlast_two_heartbeats() -> None:
    with pytest.raises(ValidationError, match="lease_seconds"):
        Settings(lease_seconds=5.0, heartbeat_seconds=3.0)


def test_ids_tell_their_kind_and_differ() -> None:
    ids = {new_id("job") for _ in range(100)}
    assert len(ids) == 100
    assert all(len(id_) == len("job_") + 16 and id_.startswith("job_") for id_ in ids)


@pytest.mark.parametrize("url", ["", "s3://bucket", "s3://bucket/some/prefix", "file:///folder"])
def test_files_are_kept_in_a_folder_or_a_bucket(url: str) -> None:
    assert Settings(artifacts_url=url).artifacts_url == url


@pytest.mark.parametrize(
    "url", ["s3://", "bucket", "file://host/folder", "gs://bucket", "/folder"]
)
def test_other_places_for_files_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="must be s3://bucket/prefix or file:///folder"):
        Settings(artifacts_url=url)
