"""Uploads through the real application: what is wrong is refused by name and leaves nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import load_file, save_file
from sqlalchemy import select, update

from search.errors import InvalidInput
from service.client import Client, Conflict, NotFound, Rejected, upload_calls
from service.client.calls import nothing, post
from service.database.db import Database, epoch_now
from service.database.models import Upload, UploadFile
from service.settings import Settings
from service.tenants.auth import create_key
from service.tenants.tenants import create_tenant
from tests.search.data.encoded import images_in, write_listing, write_parquet
from tests.search.model.folders import (
    header_of,
    tensor_shapes,
    write_model,
    write_tensors,
    write_vision_model,
)
from tests.service.serving import app_of, files_in, sdk, write_data


def is_empty(settings: Settings, database: Database) -> bool:
    with database.read() as session:
        rows = session.scalars(select(Upload)).all() or session.scalars(select(UploadFile)).all()
    return not rows and not files_in(settings.data_dir)


def declare(http: TestClient, content: bytes, name: str = "d.csv", **changes: Any) -> str:
    file = {
        "name": name,
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        **changes,
    }
    answer = http.post("/v1/uploads", json={"kind": "dataset", "files": [file]})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_a_model_and_data_become_ready(client: Client, tmp_path: Path) -> None:
    model = client.upload_folder(write_model(tmp_path / "model"))
    assert model.state == "ready"
    assert model.summary is not None
    assert model.summary["shape"]["num_layers"] == 2
    data = client.upload_file(write_data(tmp_path / "data.csv"))
    assert data.summary is not None
    assert data.summary["rows_by_label"] == {"bad": 20, "good": 20}


def test_known_content_is_not_sent_again(client: Client, http: TestClient, tmp_path: Path) -> None:
    path = write_data(tmp_path / "data.csv")
    client.upload_file(path)
    upload_id = declare(http, path.read_bytes())
    assert http.get(f"/v1/uploads/{upload_id}").json()["files"][0]["received"]
    assert http.post(f"/v1/uploads/{upload_id}/finalize").json()["state"] == "ready"


Damage = Callable[[Path], None]


def _edit(name: str, change: Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def _other_shapes(folder: Path) -> None:
    shapes = {**tensor_shapes(), "embeddings.LayerNorm.weight": [4]}
    write_tensors(folder / "model.safetensors", header_of(shapes))


@pytest.mark.parametrize(
    ("damage", "field", "reason"),
    [
        (_edit("model.safetensors", lambda b: b[:-9]), "model.safetensors", "truncated"),
        (_edit("model.safetensors", lambda b: b[:9]), "model.safetensors", "truncated"),
        (_edit("model.safetensors", lambda b: b"\x80\x04" + b[2:]), "model.safetensors", ""),
        (_edit("config.json", lambda b: b.replace(b"bert", b"mamba")), "config.json", "supported"),
        (_edit("config.json", lambda b: b[:-1]), "config.json", "not valid JSON"),
        (_edit("tokenizer.json", lambda _: b"{}"), "tokenizer.json", "no vocabulary"),
        (_other_shapes, "model.safetensors", "has shape [4], config.json asks for [8]"),
    ],
)
def test_a_broken_model_is_refused_and_leaves_nothing(
    client: Client,
    settings: Settings,
    database: Database,
    tmp_path: Path,
    damage: Damage,
    field: str,
    reason: str,
) -> None:
    folder = write_model(tmp_path / "model")
    damage(folder)
    with pytest.raises(Rejected) as caught:
        client.upload_folder(folder)
    assert caught.value.problem.errors[0].field == field
    assert reason in caught.value.problem.errors[0].reason
    assert is_empty(settings, database)


@pytest.mark.parametrize(
    ("content", "field", "reason"),
    [
        (b"", "data", "is empty"),
        (b"text,lable\nx,y\n", "data.label", "'label' is missing"),
        (b"text,label\n" + b"x,y\n" * 60, "data.label", "at least two classes"),
        (b"text,label\n" + b"x,y\nx,z\n" * 19, "data", "need at least 40"),
        (b"text,label\n\xff,y\n", "data", "not UTF-8: line 2"),
    ],
)
def test_broken_data_is_refused_and_leaves_nothing(
    client: Client,
    settings: Settings,
    database: Database,
    tmp_path: Path,
    content: bytes,
    field: str,
    reason: str,
) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(Rejected) as caught:
        client.upload_file(path)
    assert caught.value.problem.errors[0].field == field
    assert reason in caught.value.problem.errors[0].reason
    assert is_empty(settings, database)


def test_a_pickle_is_refused_by_its_name_before_it_is_sent(
    client: Client, http: TestClient, settings: Settings, database: Database, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match=r"pytorch_model.bin is a Python pickle"):
        client.upload_folder(folder)
    # Another client may not look: the server does.
    names = ("config.json", "tokenizer.json", "pytorch_model.bin")
    files = [{"name": name, "size_bytes": 1, "sha256": "0" * 64} for name in names]
    answer = http.post("/v1/uploads", json={"kind": "model", "files": files})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "pytorch_model.bin"
    files.append({"name": "model.safetensors", "size_bytes": 1, "sha256": "0" * 64})
    answer = http.post("/v1/uploads", json={"kind": "model", "files": files})
    assert answer.json()["errors"][0]["field"] == "pytorch_model.bin"
    assert is_empty(settings, database)


def test_a_pickle_beside_safetensors_stays_where_it_is(client: Client, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nabort\n(tR.")
    names = {file["name"] for file in client.upload_folder(folder).files}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"}


def test_the_card_of_a_model_is_sent_with_it(client: Client, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    assert "README.md" in {file["name"] for file in client.upload_folder(folder).files}


def test_a_model_in_shards_is_sent_whole(client: Client, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    whole = (folder / "model.safetensors").rename(folder / "other.safetensors")
    tensors = load_file(whole)
    places = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), 1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / shard)
        places |= dict.fromkeys(names, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    model = client.upload_folder(folder)
    assert model.state == "ready"
    assert {file["name"] for file in model.files} == {
        "config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
        *places.values(),
    }
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(Rejected) as caught:
        client.upload_folder(folder)
    assert caught.value.problem.errors[0].field == "model-00002-of-00002.safetensors"


def test_a_vision_model_needs_no_tokenizer(client: Client, tmp_path: Path) -> None:
    model = client.upload_folder(write_vision_model(tmp_path / "vit"))
    assert model.summary is not None
    assert model.summary["shape"]["task"] == "image-classification"
    assert "preprocessor_config.json" in {file["name"] for file in model.files}


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"ab", "3 were declared"), (b"abd", "another SHA")],
)
def test_content_that_was_not_declared_is_dropped(
    http: TestClient, settings: Settings, sent: bytes, reason: str
) -> None:
    upload_id = declare(http, b"abc")
    answer = http.put(f"/v1/uploads/{upload_id}/files/d.csv", content=sent)
    assert answer.status_code == 422
    assert reason in answer.json()["errors"][0]["reason"]
    assert not files_in(settings.data_dir)
    answer = http.post(f"/v1/uploads/{upload_id}/finalize")
    assert answer.status_code == 409
    assert "d.csv" in answer.json()["detail"]


def test_a_large_file_arrives_in_pieces(http: TestClient, settings: Settings) -> None:
    content = bytes(range(256)) * 20_000
    upload_id = declare(http, content)
    pieces = (content[i : i + 70_001] for i in range(0, len(content), 70_001))
    answer = http.put(f"/v1/uploads/{upload_id}/files/d.csv", content=pieces)
    assert answer.status_code == 204
    (stored,) = files_in(settings.data_dir)
    assert (settings.data_dir / stored).read_bytes() == content


@pytest.mark.parametrize("name", ["other.csv", "..%2Fsnugnet.db", "%2Fetc%2Fpasswd"])
def test_only_declared_files_are_taken(http: TestClient, settings: Settings, name: str) -> None:
    upload_id = declare(http, b"abc")
    answer = http.put(f"/v1/uploads/{upload_id}/files/{name}", content=b"abc")
    assert answer.status_code == 404
    assert not files_in(settings.data_dir)


def test_a_ready_upload_takes_no_more_files_and_is_not_discarded(
    client: Client, http: TestClient, tmp_path: Path
) -> None:
    upload = client.upload_file(write_data(tmp_path / "data.csv"))
    answer = http.put(f"/v1/uploads/{upload.id}/files/data.csv", content=b"x")
    assert answer.status_code == 409
    assert http.delete(f"/v1/uploads/{upload.id}").status_code == 409
    assert http.post(f"/v1/uploads/{upload.id}/finalize").json()["state"] == "ready"


def test_discarding_keeps_what_another_upload_has(
    client: Client, http: TestClient, settings: Settings, tmp_path: Path
) -> None:
    path = write_data(tmp_path / "data.csv")
    client.upload_file(path)
    before = files_in(settings.data_dir)
    upload_id = declare(http, path.read_bytes())
    assert http.delete(f"/v1/uploads/{upload_id}").status_code == 204
    assert http.get(f"/v1/uploads/{upload_id}").status_code == 404
    assert files_in(settings.data_dir) == before


def test_abandoned_uploads_are_swept(
    http: TestClient, settings: Settings, database: Database
) -> None:
    old = declare(http, b"abc")
    http.put(f"/v1/uploads/{old}/files/d.csv", content=b"abc")
    with database.write() as session:
        session.execute(update(Upload).values(created_at=epoch_now() - 2 * 24 * 3600))
    declare(http, b"abd")
    assert http.get(f"/v1/uploads/{old}").status_code == 404
    assert not files_in(settings.data_dir)


def test_an_upload_that_breaks_off_is_discarded(
    client: Client,
    settings: Settings,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(upload_calls, "_send_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.upload_file(write_data(tmp_path / "data.csv"))
    assert is_empty(settings, database)


def test_a_dataset_is_one_file_of_a_known_kind(http: TestClient) -> None:
    file = {"name": "d.zip", "size_bytes": 3, "sha256": "0" * 64}
    answer = http.post("/v1/uploads", json={"kind": "dataset", "files": [file]})
    assert answer.json()["errors"] == [
        {"field": "files", "reason": "must be one file that ends in .csv or .jsonl or .parquet"}
    ]


@pytest.mark.parametrize("error", [NotFound, Conflict])
def test_errors_are_typed(client: Client, http: TestClient, error: type[Exception]) -> None:
    upload_id = "up_x" if error is NotFound else declare(http, b"abc")
    with pytest.raises(error):
        client.send(post(nothing, f"/v1/uploads/{upload_id}/finalize"))


def declare_all(http: TestClient, folder: Path, names: list[str], **changes: Any) -> Any:
    files = [
        {
            "name": name,
            "size_bytes": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in names
    ]
    body = {"kind": "dataset", "task": "image-classification", "files": files, **changes}
    return http.post("/v1/uploads", json=body)


def test_a_listing_is_uploaded_with_its_images_in_their_folders(
    http: TestClient, tmp_path: Path
) -> None:
    write_listing(tmp_path, images_in())
    names = ["data.jsonl", *images_in()]
    upload_id = declare_all(http, tmp_path, names).json()["id"]
    for name in names:
        path = f"/v1/uploads/{upload_id}/files/{name}"
        assert http.put(path, content=(tmp_path / name).read_bytes()).status_code == 204
    summary = http.post(f"/v1/uploads/{upload_id}/finalize").json()["summary"]
    assert (summary["image"], summary["label"]) == ("image", "label")
    assert (summary["num_rows"], summary["num_channels"], summary["height"]) == (40, 1, 8)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["data.jsonl", "a.txt"], "'a.txt' is no image; beside a listing, files end in .png"),
        (["data.jsonl", "b.jsonl"], "must be one file that ends in .npz or .jsonl or .parquet"),
        (["a.parquet", "a.png"], "must be one file that ends in .npz or .jsonl or .parquet"),
        (["a/data.jsonl", "a.png"], "must be one file that ends in .npz or .jsonl or .parquet"),
    ],
)
def test_only_images_stand_beside_a_listing(
    http: TestClient, tmp_path: Path, names: list[str], reason: str
) -> None:
    (tmp_path / "a").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    answer = declare_all(http, tmp_path, names)
    assert answer.status_code == 422
    assert reason in answer.json()["errors"][0]["reason"]


@pytest.mark.parametrize(
    "name", ["../a.png", "a/../b.png", "/a.png", ".a.png", "a//b.png", "a/.b"]
)
def test_a_file_is_not_declared_outside_of_its_upload(http: TestClient, name: str) -> None:
    file = {"name": name, "size_bytes": 3, "sha256": "0" * 64}
    body = {"kind": "dataset", "task": "image-classification", "files": [file]}
    answer = http.post("/v1/uploads", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "files[0].name"


def test_data_have_a_size_in_all(http: TestClient) -> None:
    file = {"name": "data.csv", "size_bytes": 512 * 1024**2 + 1, "sha256": "0" * 64}
    answer = http.post("/v1/uploads", json={"kind": "dataset", "files": [file]})
    assert answer.json()["errors"] == [
        {"field": "files", "reason": "have more than 536870912 bytes together"}
    ]


def test_a_parquet_file_is_read_for_its_task(client: Client, tmp_path: Path) -> None:
    labels = ["good" if i % 2 else "bad" for i in range(40)]
    texts = [f"text {i}" for i in range(40)]
    path = write_parquet(tmp_path / "data.parquet", body=texts, label=labels)
    data = client.upload_file(path, columns={"text": "body"})
    assert data.summary is not None
    assert data.summary["rows_by_label"] == {"bad": 20, "good": 20}


def test_the_sdk_sends_a_large_file_in_chunks(
    client: Client, http: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.uploads.uploads.CHUNK_BYTES", 200)
    monkeypatch.setattr("service.uploads.chunks.CHUNK_BYTES", 200)
    asked: list[str] = []
    request = http.request

    def noted(method: str, url: str, **options: Any) -> Any:
        asked.append(url.rpartition("/files/")[2])
        return request(method, url, **options)

    monkeypatch.setattr(http, "request", noted)
    assert client.upload_file(write_data(tmp_path / "data.csv")).state == "ready"
    assert asked[1:4] == [f"data.csv/chunks/{index}" for index in range(3)]


# --- tenants ------------------------------------------------------------------------------------


@pytest.fixture
def other(http: TestClient, settings: Settings) -> Iterator[Client]:
    """A client of another tenant, on the same server."""
    database = Database(settings.database_url)
    with database.write() as session:
        tenant_id = create_tenant(session, "other").id
    with database.for_tenant(tenant_id).write() as session:
        key = create_key(session, "other")
    database.dispose()
    headers = {"Authorization": f"Bearer {key}"}
    theirs = TestClient(app_of(http), headers=headers, raise_server_exceptions=False)
    with sdk(theirs) as client:
        yield client


def test_the_hash_of_anothers_file_does_not_give_it(
    client: Client, other: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_data(tmp_path / "data.csv")
    client.upload_file(path)
    sent: list[str] = []
    send = upload_calls._send_file

    def noted(upload: Any, name: str, path: Path) -> Any:
        assert not upload.files[0]["received"]
        sent.append(name)
        return send(upload, name, path)

    monkeypatch.setattr(upload_calls, "_send_file", noted)
    assert other.upload_file(path).state == "ready"
    assert sent == ["data.csv"]


def test_what_another_tenant_has_too_stays_when_one_discards_it(
    client: Client, other: Client, http: TestClient, settings: Settings, tmp_path: Path
) -> None:
    path = write_data(tmp_path / "data.csv")
    other.upload_file(path)
    before = files_in(settings.data_dir)
    upload_id = declare(http, path.read_bytes())
    http.put(f"/v1/uploads/{upload_id}/files/d.csv", content=path.read_bytes())
    http.delete(f"/v1/uploads/{upload_id}")
    assert files_in(settings.data_dir) == before
    client.upload_file(path)
