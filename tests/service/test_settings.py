from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from search.errors import InvalidInput
from service.database.ids import new_id
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


def test_a_value_may_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://me:pa55word@db/snugnet\n")
    monkeypatch.setenv("SNUGNET_DATABASE_URL_FILE", str(tmp_path / "url"))
    assert Settings().database_url == "postgresql://me:pa55word@db/snugnet"
    assert Settings(database_url="sqlite://").database_url == "sqlite://"
    monkeypatch.setenv("SNUGNET_DATABASE_URL", "sqlite://")
    with pytest.raises(InvalidInput, match="SNUGNET_DATABASE_URL_FILE"):
        Settings()


def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNUGNET_DATABASE_URL", "postgresql://me:pa55word@db/snugnet")
    monkeypatch.setenv("SNUGNET_BROKER_URL", "redis://:hunter2@redis:6379/0")
    settings = Settings()
    assert settings.secrets == ("pa55word", "hunter2")
    with pytest.raises(ValidationError) as refused:
        Settings(lease_seconds=5.0, heartbeat_seconds=3.0)
    for shown in (repr(settings), str(settings), str(settings.redacted()), str(refused.value)):
        assert "pa55word" not in shown
        assert "hunter2" not in shown
    assert settings.redacted()["broker_url"] == "redis://:***@redis:6379/0"


@pytest.mark.parametrize("url", ["", "s3://bucket", "s3://bucket/some/prefix", "file:///folder"])
def test_files_are_kept_in_a_folder_or_a_bucket(url: str) -> None:
    assert Settings(artifacts_url=url).artifacts_url == url


@pytest.mark.parametrize(
    "url", ["s3://", "bucket", "file://host/folder", "gs://bucket", "/folder"]
)
def test_other_places_for_files_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="must be s3://bucket/prefix or file:///folder"):
        Settings(artifacts_url=url)
