"""Whose key signs, where it lies, and how a new one takes over."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from fastapi.testclient import TestClient

from search.errors import InvalidInput
from service.artifacts.signing_keys import load_signing_key, prepare_signing_key, sign_content
from service.artifacts.verifying import verify_folder
from service.client import Client
from service.database.db import Database
from service.settings import Settings
from tests.service.commands import Cli
from tests.service.serving import listening
from tests.service.signed import public_key, write_folder


def pem_of(key: object) -> bytes:
    return key.private_bytes(  # type: ignore[attr-defined,no-any-return]
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def test_a_host_makes_its_key_once_and_for_itself_alone(
    settings: Settings, database: Database
) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: public_key(load_signing_key(settings)), range(8)))
    assert len(set(keys)) == 1
    assert (settings.data_dir / "signing.key").stat().st_mode & 0o777 == 0o600
    assert list(settings.data_dir.glob(".signing-key-*")) == []
    signature = sign_content(settings, database, b"content")
    signature.check(b"content")
    assert signature.public_key == keys[0]


def test_keys_that_signed_stay_known_after_another_took_over(
    settings: Settings, database: Database, http: TestClient, client: Client, tmp_path: Path
) -> None:
    old = load_signing_key(settings)
    new = Ed25519PrivateKey.generate()
    (tmp_path / "new.pem").write_bytes(pem_of(new))
    rotated = settings.model_copy(update={"signing_key_file": tmp_path / "new.pem"})
    sign_content(settings, database, b"x")
    sign_content(settings, database, b"y")
    prepare_signing_key(rotated, database)
    assert sign_content(rotated, database, b"z").public_key == public_key(new)
    assert {key.public_key for key in client.signing_keys()} == {public_key(old), public_key(new)}
    # Who verifies needs no API key.
    answer = http.get("/v1/signing-keys", headers={"Authorization": ""})
    assert [set(item) for item in answer.json()["items"]] == [
        {"id", "public_key", "created_at"}
    ] * 2


def test_a_file_that_is_no_signing_key_is_named(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    settings = settings.model_copy(update={"signing_key_file": path})
    with pytest.raises(InvalidInput, match=r"SNUGNET_SIGNING_KEY_FILE: .* cannot be read"):
        load_signing_key(settings)
    for content in (b"", b"nonsense", pem_of(generate_private_key(SECP256R1()))):
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match="is no Ed25519 private key"):
            load_signing_key(settings)


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capsys)


@pytest.fixture
def folder(settings: Settings, database: Database, tmp_path: Path) -> Path:
    prepare_signing_key(settings, database)
    return write_folder(tmp_path / "job" / "target-0", load_signing_key(settings))


def test_the_command_says_whose_signature_it_found(
    cli: Cli, folder: Path, settings: Settings
) -> None:
    known = public_key(load_signing_key(settings))
    code, out, err = cli("verify", str(folder), "--key", known)
    assert (code, err) == (0, "")
    key_id = verify_folder(folder).key_id
    assert out == f"3 files as they were signed by {key_id}\n"
    code, out, _ = cli("verify", str(folder))
    assert code == 0
    assert "compared with none: give --key or --url" in out


def test_the_command_asks_a_server_for_its_keys(
    cli: Cli, folder: Path, settings: Settings
) -> None:
    with listening(settings) as (url, _):
        assert cli("verify", str(folder), "--url", url)[0] == 0
        write_folder(folder, Ed25519PrivateKey.generate())
        code, out, _ = cli("verify", str(folder), "--url", url)
    assert code == 1
    assert "which is no known key" in out


def test_the_command_names_each_problem_in_a_line(cli: Cli, folder: Path) -> None:
    (folder / "config.json").write_bytes(b"")
    (folder / "more").write_bytes(b"")
    code, out, _ = cli("verify", str(folder))
    assert code == 1
    assert out.splitlines() == [
        "config.json: has 0 bytes, the manifest says 8",
        "more: is not in the manifest",
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["none"], "is not a folder"),
        (["job"], "holds several subnets; give one, such as job/target-0"),
        (["job/target-0", "--key", "x"], "key: must be an Ed25519 public key"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(
    cli: Cli,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(folder.parents[1])
    code, out, err = cli("verify", *options)
    assert (code, out) == (2, "")
    assert told in err
