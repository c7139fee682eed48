"""Whatever is changed in a signed folder is found, and named in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from search.errors import InvalidInput
from service.artifacts.signatures import read_public_key, sign
from service.artifacts.verifying import verify_folder
from tests.service.signed import FILES, public_key, write_folder

KEY = Ed25519PrivateKey.generate()
KNOWN = {public_key(KEY), public_key(Ed25519PrivateKey.generate())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "target-0", KEY)


def problems(folder: Path) -> tuple[str, ...]:
    return verify_folder(folder, KNOWN).problems


def test_what_was_signed_is_verified(folder: Path) -> None:
    found = verify_folder(folder, KNOWN)
    assert (found.problems, found.num_files, found.is_known_key) == ((), len(FILES), True)
    unknown = verify_folder(folder)
    assert (unknown.problems, unknown.is_known_key) == ((), False)
    assert unknown.key_id == found.key_id


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "manifest.sig"])
def test_every_byte_counts(folder: Path, name: str) -> None:
    """Each one is changed in each of two ways, also without a key to compare with."""
    path = folder / name
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (0x01, 0x20):
            path.write_bytes(
                content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
            )
            found = verify_folder(folder).problems
            assert found, f"byte {place} of {name}"
            assert all("\n" not in problem for problem in found)
    path.write_bytes(content)
    assert problems(folder) == ()


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "manifest.sig"])
def test_a_file_that_is_shorter_longer_or_gone_is_named(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    for changed in (content[:-1], content + b"\n"):
        if changed != content:
            path.write_bytes(changed)
            assert any(name in problem or "manifest" in problem for problem in problems(folder))
    path.unlink()
    assert f"{name}: is missing" in problems(folder)


def test_each_thing_that_is_wrong_has_its_line(folder: Path) -> None:
    (folder / "config.json").write_bytes(b'{"a": 2}')
    (folder / "empty").unlink()
    (folder / "onnx" / "model.onnx").write_bytes(b"short")
    (folder / "onnx" / "extra.bin").write_bytes(b"")
    (folder / "linked").symlink_to(folder / "onnx")
    assert problems(folder) == (
        "config.json: has another content than was signed",
        "empty: is missing",
        f"onnx/model.onnx: has 5 bytes, the manifest says {len(FILES['onnx/model.onnx'])}",
        "linked: is not in the manifest",
        "onnx/extra.bin: is not in the manifest",
    )


def test_a_manifest_that_was_edited_with_its_file_is_no_longer_signed(folder: Path) -> None:
    (folder / "empty").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["empty"]
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    assert problems(folder) == ("manifest.sig: it is of something else",)


def test_another_key_signs_for_nobody_who_knows_the_right_one(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"forged")
    write_folder(folder, Ed25519PrivateKey.generate())
    (problem,) = problems(folder)
    assert problem.startswith("manifest.sig: signed by ")
    assert problem.endswith(", which is no known key")
    assert verify_folder(folder).problems == ()  # nobody said whom to trust
    assert len(verify_folder(folder, set()).problems) == 1


def test_a_signature_under_the_right_keys_name_is_not_its_own(folder: Path) -> None:
    content = (folder / "manifest.json").read_bytes()
    forged = sign(Ed25519PrivateKey.generate(), content)
    right = sign(KEY, content)
    for changes in (
        {"public_key": right.public_key, "key_id": right.key_id},
        {"key_id": right.key_id},
        {"public_key": right.public_key},
        {"signature": ""},
        {"signature": "?"},
        {"public_key": "AAAA"},
    ):
        (folder / "manifest.sig").write_bytes(forged.model_copy(update=changes).dump())
        (problem,) = problems(folder)
        assert problem.startswith("manifest.sig: ")


def test_a_signed_name_that_leaves_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"")
    described = {"size_bytes": 0, "sha256": "0" * 64}
    names = ("../secret", str(secret), "a/../../secret", "a\\b", "")
    folder = write_folder(tmp_path / "target-0", KEY, **dict.fromkeys(names, described))
    assert problems(folder) == tuple(
        f"{name}: is a name that leaves the folder" for name in sorted(names)
    )


@pytest.mark.parametrize(
    "manifest", [b"", b"[]", b"{}", b'{"files": []}', b'{"files": {"a": {"size_bytes": -1}}}']
)
def test_a_signed_manifest_that_is_none_is_told(folder: Path, manifest: bytes) -> None:
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "manifest.sig").write_bytes(sign(KEY, manifest).dump())
    assert any(problem.startswith("manifest.json: is no manifest") for problem in problems(folder))


def test_a_folder_in_place_of_a_file_is_told(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    (problem,) = problems(folder)
    assert problem.startswith("config.json: ")


def test_there_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a folder"):
        verify_folder(tmp_path / "none")


def test_a_public_key_is_given_as_text_as_a_file_or_as_pem(tmp_path: Path) -> None:
    text = public_key(KEY)
    (tmp_path / "key").write_text(text + "\n")
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(pem)
    given = (text, str(tmp_path / "key"), str(tmp_path / "key.pem"))
    assert {read_public_key(key) for key in given} == {text}


@pytest.mark.parametrize("key", ["", "AAAA", "no key", "-----BEGIN PUBLIC KEY-----"])
def test_what_is_no_public_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match="key: "):
        read_public_key(key)
