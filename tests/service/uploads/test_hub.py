"""Models and data by hub name: pinned to a commit, weights as safetensors alone, and nothing where
the operator does not allow it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.client import Client, Rejected
from service.database.db import Database
from service.database.models import Tenant, Upload, UploadFile
from service.settings import Settings
from service.store.filesystem import FilesystemStore
from service.tenants.tenancy import DEFAULT_TENANT
from service.uploads.checks.checker import Checker
from tests.search.model.folders import write_model
from tests.service.hub import COMMIT, LATER, Hub, running_hub
from tests.service.serving import files_in, serving, write_data
from tests.service.uploads.checks.test_checker import upload_of
from tests.service.uploads.checks.test_inspector import until

REPO = "org/tiny-bert"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        hub.add(f"models/{REPO}", model_files(tmp_path))
        yield hub


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # Nobody dies here but fetching processes, which is seen without a lease.
    return settings.model_copy(update={"allow_hub": True, "lease_seconds": 60.0})


def model_files(tmp_path: Path) -> dict[str, bytes]:
    folder = write_model(tmp_path / "hub-model")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {
        **files,
        "modeling_evil.py": b"import os",
        "pytorch_model.bin": b"\x80\x04",
        "onnx/model.onnx": b"x",
    }


def ask(http: TestClient, kind: str = "model", **hub: Any) -> Any:
    return http.post("/v1/uploads", json={"kind": kind, "hub": {"repo": REPO, **hub}})


def settled(http: TestClient, upload_id: str) -> Any:
    """What `finalize` says once nothing is under way any more."""
    while True:
        answer = http.post(f"/v1/uploads/{upload_id}/finalize", params={"wait_s": 20})
        if answer.status_code != 202:
            return answer


def fetched(http: TestClient, **hub: Any) -> Any:
    answer = ask(http, **hub)
    assert answer.status_code == 201, answer.text
    return settled(http, answer.json()["id"])


def refused(answer: Any) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    return dict(error)


def test_a_model_is_fetched_at_the_commit_that_its_branch_points_to(
    http: TestClient, hub: Hub, settings: Settings
) -> None:
    asked = ask(http).json()
    assert asked["state"] == "fetching"
    assert asked["hub"] == {"repo": REPO, "revision": "main", "file": None, "commit": None}
    upload = settled(http, asked["id"]).json()
    assert upload["state"] == "ready"
    assert (upload["hub"]["revision"], upload["hub"]["commit"]) == ("main", COMMIT)
    assert upload["summary"]["shape"]["num_layers"] == 2
    assert {file["name"] for file in upload["files"]} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert not hub.got("modeling_evil.py") + hub.got("pytorch_model.bin")
    assert len(files_in(settings.data_dir)) == 3
    assert not list(settings.scratch_dir.iterdir())


def test_a_commit_stays_what_it_is_when_the_branch_moves(http: TestClient, hub: Hub) -> None:
    hub.add(f"models/{REPO}", {"config.json": b"{}"}, commit=LATER)
    hub.branches["main"] = LATER
    upload = fetched(http, revision=COMMIT).json()
    assert (upload["state"], upload["hub"]["commit"]) == ("ready", COMMIT)


@pytest.mark.parametrize(
    ("asked", "field", "reason"),
    [
        ({"repo": "org/none"}, "hub.repo", "has no public model 'org/none'"),
        ({"revision": "v2"}, "hub.revision", "has no revision 'v2'"),
        ({"repo": "org/pickled"}, "pytorch_model.bin", "is a Python pickle"),
        ({"repo": "org/empty"}, "config.json", "is missing"),
        ({"repo": "org/broken"}, "model.safetensors", "is truncated"),
    ],
)
def test_what_is_no_model_is_refused_and_leaves_nothing(
    http: TestClient,
    hub: Hub,
    settings: Settings,
    tmp_path: Path,
    asked: dict[str, str],
    field: str,
    reason: str,
) -> None:
    files = model_files(tmp_path)
    weights = files.pop("model.safetensors")
    hub.add("models/org/pickled", files)
    hub.add("models/org/empty", {})
    hub.add("models/org/broken", {**files, "model.safetensors": weights[:-5]})
    error = refused(fetched(http, **asked))
    assert error["field"] == field
    assert reason in error["reason"]
    assert not files_in(settings.data_dir)


@pytest.mark.parametrize(
    "hub_source",
    [
        {"repo": "../../etc"},
        {"repo": "http://169.254.169.254/x"},
        {"repo": "a/b/c"},
        {"revision": "../main"},
        {"revision": "a..b"},
        {"file": "config.json"},
        {"endpoint": "http://other"},
    ],
)
def test_only_names_are_taken(http: TestClient, hub: Hub, hub_source: dict[str, str]) -> None:
    assert ask(http, **hub_source).status_code == 422
    assert not hub.asked


def test_either_files_are_sent_or_a_hub_has_them(http: TestClient) -> None:
    assert http.post("/v1/uploads", json={"kind": "model"}).status_code == 422
    file = {"name": "config.json", "size_bytes": 1, "sha256": "0" * 64}
    body = {"kind": "model", "files": [file], "hub": {"repo": REPO}}
    answer = http.post("/v1/uploads", json=body)
    assert answer.json()["errors"][0]["reason"] == "give exactly one of files and hub"


def test_a_server_that_does_not_allow_it_says_so(settings: Settings, hub: Hub) -> None:
    with serving(settings.model_copy(update={"allow_hub": False}), reads_apart=True) as http:
        answer = ask(http)
        assert (answer.status_code, answer.json()["code"]) == (403, "hub_not_allowed")
        assert not http.get("/v1/server-info").json()["allows_hub"]
    assert not hub.asked
    assert not Settings(data_dir=settings.data_dir).allow_hub


def test_an_allowing_server_tells_it(http: TestClient) -> None:
    assert http.get("/v1/server-info").json()["allows_hub"]


def test_data_are_one_file_of_a_repository(http: TestClient, hub: Hub, tmp_path: Path) -> None:
    content = write_data(tmp_path / "train.csv").read_bytes()
    hub.add("datasets/org/reviews", {"data/train.csv": content, "README.md": b"x"})
    asked = ask(http, "dataset", repo="org/reviews", file="data/train.csv").json()
    upload = settled(http, asked["id"]).json()
    assert upload["state"] == "ready"
    assert upload["summary"]["rows_by_label"] == {"bad": 20, "good": 20}
    assert [file["name"] for file in upload["files"]] == ["train.csv"]
    asked = ask(http, "dataset", repo="org/reviews", file="data/test.csv").json()
    error = refused(settled(http, asked["id"]))
    assert error["field"] == "hub.file"
    assert "beside it are data/train.csv" in error["reason"]
    answer = ask(http, "dataset", repo="org/reviews", file="data/train.zip")
    assert answer.json()["errors"][0]["field"] == "hub.file"
    assert ask(http, "dataset", repo="org/reviews").json()["errors"][0]["field"] == "hub.file"


def test_what_a_tenant_may_have_counts_before_it_is_fetched(
    http: TestClient, hub: Hub, database: Database
) -> None:
    with database.write() as session:
        session.get_one(Tenant, DEFAULT_TENANT).max_bytes = 1000
    error = refused(fetched(http))
    assert error["field"] == "hub"
    assert "bytes are in use" in error["reason"]
    assert not hub.got("model.safetensors")


def test_a_file_that_is_not_what_the_hub_announced_is_not_taken(
    http: TestClient, hub: Hub, settings: Settings
) -> None:
    hub.lying["model.safetensors"] = "0" * 64
    error = refused(fetched(http))
    assert error["field"] == "files"
    assert "could not be fetched in 4 attempts" in error["reason"]
    assert not files_in(settings.data_dir)


def test_a_fetch_that_is_killed_goes_on_with_what_has_not_arrived(
    settings: Settings, database: Database, hub: Hub
) -> None:
    apart = settings.model_copy(update={"runs_checks": False})
    hub.held.add("tokenizer.json")
    store = FilesystemStore(settings.blobs_dir)
    with serving(apart, reads_apart=True) as http:
        upload_id = ask(http).json()["id"]
        checker = Checker(settings, database=database, store=store)
        checker.start()
        try:
            until(lambda: hub.got("tokenizer.json") == 1)
            until(lambda: num_files(http, upload_id) == 2)
            until(lambda: progress_of(http, upload_id) > 0.5)
            upload = http.get(f"/v1/uploads/{upload_id}").json()
            assert (upload["state"], upload["hub"]["commit"]) == ("fetching", COMMIT)
            assert upload["progress"]["unit"] == "bytes"
            # The branch moves on; what was begun stays what it is.
            hub.branches["main"] = LATER
            kill_fetching()
            until(lambda: hub.got("tokenizer.json") == 2)
            hub.released.set()
            until(lambda: upload_of(database, upload_id).state == "ready")
        finally:
            checker.stop()
    assert (hub.got("config.json"), hub.got("model.safetensors")) == (1, 1)
    assert (upload_of(database, upload_id).hub or {})["commit"] == COMMIT


def num_files(http: TestClient, upload_id: str) -> int:
    return len(http.get(f"/v1/uploads/{upload_id}").json()["files"])


def progress_of(http: TestClient, upload_id: str) -> float:
    """A share that is below 1."""
    progress = http.get(f"/v1/uploads/{upload_id}").json()["progress"]
    assert progress["done"] < progress["total"]
    return float(progress["done"] / progress["total"])


def kill_fetching() -> None:
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes()
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if b"service.uploads.checks.fetch_child" in command and parent == os.getpid():
            os.kill(int(place.name), signal.SIGKILL)


def test_a_hub_that_is_away_for_a_while_is_asked_again(http: TestClient, hub: Hub) -> None:
    hub.is_down = True
    upload_id = ask(http).json()["id"]
    until(lambda: bool(hub.asked))
    hub.is_down = False
    assert settled(http, upload_id).json()["state"] == "ready"


def test_a_hub_that_stays_away_is_given_up(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refused(fetched(http))
    assert error["field"] == "files"
    assert "could not be fetched in 4 attempts" in error["reason"]


def test_a_fetch_can_be_given_up(
    http: TestClient, hub: Hub, database: Database, settings: Settings
) -> None:
    hub.held.add("model.safetensors")
    upload_id = ask(http).json()["id"]
    until(lambda: hub.got("model.safetensors") == 1)
    assert http.delete(f"/v1/uploads/{upload_id}").status_code == 204
    until(lambda: not list(settings.scratch_dir.iterdir()))
    assert not files_in(settings.data_dir)
    with database.read() as session:
        assert not session.scalars(select(Upload)).all()
        assert not session.scalars(select(UploadFile)).all()


@pytest.mark.usefixtures("hub")
def test_the_client_waits_until_it_is_here(client: Client) -> None:
    upload = client.upload_from_hub(REPO)
    assert (upload.state, (upload.hub or {})["commit"]) == ("ready", COMMIT)
    with pytest.raises(Rejected, match="no revision"):
        client.upload_from_hub(REPO, revision="v2")
