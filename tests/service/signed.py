"""A small signed folder, as a job hands it out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.artifacts.signatures import encode_public_key, sign
from service.artifacts.verifying import MANIFEST_FILE, SIGNATURE_FILE

FILES = {"config.json": b'{"a": 1}', "onnx/model.onnx": b"\x00weights\xff", "empty": b""}


def public_key(key: Ed25519PrivateKey) -> str:
    return encode_public_key(key.public_key())


def write_folder(folder: Path, key: Ed25519PrivateKey, **more: Any) -> Path:
    """`more` is added to the manifest's files."""
    files: dict[str, Any] = {}
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        files[name] = {"size_bytes": len(content), "sha256": sha256}
    manifest = (json.dumps({"version": 1, "files": files | more}, indent=1) + "\n").encode()
    (folder / MANIFEST_FILE).write_bytes(manifest)
    (folder / SIGNATURE_FILE).write_bytes(sign(key, manifest).dump())
    return folder
