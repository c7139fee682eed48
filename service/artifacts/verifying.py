"""Is a folder what was signed? Every file by its size and hash, nothing missing, nothing more.

Needs no server. What is wrong is told in full, one line for each thing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.errors import InvalidInput
from service.artifacts.signatures import BadSignature, Signature

MANIFEST_FILE, SIGNATURE_FILE = "manifest.json", "manifest.sig"


class ManifestFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """As far as it is needed here: what else it says is covered by the signature too."""

    model_config = ConfigDict(extra="allow", strict=True)

    files: dict[str, ManifestFile]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """`problems` is empty where all is well. `key_id` is None where nobody's signature was read;
    `is_known_key` says whether the key was among those that the caller trusts."""

    problems: tuple[str, ...]
    num_files: int
    key_id: str | None
    is_known_key: bool


def verify_folder(folder: Path, known_keys: Collection[str] | None = None) -> Verification:
    """Check a downloaded folder of a subnet against its signed manifest.

    Args:
        known_keys: public keys that may have signed it; None takes any, which tells damage but
            not forgery.

    Raises: InvalidInput when there is no such folder.
    """
    if not folder.is_dir():
        raise InvalidInput("folder", f"{str(folder)!r} is not a folder")
    problems: list[str] = []
    content = _read(folder / MANIFEST_FILE, problems)
    signature = _signature_of(folder, content, known_keys, problems)
    files = _files_of(content, problems)
    for name, expected in sorted(files.items()):
        problem = _problem_of(folder, name, expected)
        if problem is not None:
            problems.append(f"{name}: {problem}")
    if content is not None:
        known = {*files, MANIFEST_FILE, SIGNATURE_FILE}
        problems += [
            f"{name}: is not in the manifest" for name in _names_in(folder) if name not in known
        ]
    return Verification(
        problems=tuple(problems),
        num_files=len(files),
        key_id=None if signature is None else signature.key_id,
        is_known_key=signature is not None and signature.public_key in (known_keys or ()),
    )


def _read(path: Path, problems: list[str]) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        problems.append(f"{path.name}: is missing")
    except OSError as error:
        problems.append(f"{path.name}: cannot be read: {error.strerror}")
    return None


def _signature_of(
    folder: Path,
    manifest: bytes | None,
    known_keys: Collection[str] | None,
    problems: list[str],
) -> Signature | None:
    content = _read(folder / SIGNATURE_FILE, problems)
    if content is None:
        return None
    try:
        found = Signature.parse(content)
        if manifest is not None:
            found.check(manifest)
    except BadSignature as error:
        problems.append(f"{SIGNATURE_FILE}: {error}")
        return None
    if known_keys is not None and found.public_key not in known_keys:
        problems.append(f"{SIGNATURE_FILE}: signed by {found.key_id}, which is no known key")
    return found


def _files_of(manifest: bytes | None, problems: list[str]) -> dict[str, ManifestFile]:
    if manifest is None:
        return {}
    try:
        return Manifest.model_validate_json(manifest).files
    except ValidationError as error:
        problems.append(f"{MANIFEST_FILE}: is no manifest: {error.errors()[0]['msg']}")
        return {}


def _problem_of(folder: Path, name: str, expected: ManifestFile) -> str | None:
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in name.split("/")):
        return "is a name that leaves the folder"
    path = folder / name
    try:
        size_bytes = path.stat().st_size
        if size_bytes != expected.size_bytes:
            return f"has {size_bytes} bytes, the manifest says {expected.size_bytes}"
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if sha256 == expected.sha256 else "has another content than was signed"


def _names_in(folder: Path) -> Iterator[str]:
    """Of every file and every link, in order."""
    for root, folders, files in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in sorted([*files, *links]):
            yield (Path(root) / name).relative_to(folder).as_posix()
