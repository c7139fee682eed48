"""Detached Ed25519 signatures, as they lie beside a manifest, and the public keys they are of.

Needs nothing of the server: who was handed files checks them with this alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from search.errors import InvalidInput

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

KEY_BYTES = 32


class BadSignature(Exception):
    """What is there is no signature, or one of something else."""


class Signature(BaseModel):
    """Of the exact bytes of a file. There is one way to write it, so that any change shows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Literal["Ed25519"] = "Ed25519"
    key_id: str
    public_key: str
    signature: str

    @classmethod
    def parse(cls, content: bytes) -> Signature:
        """Raises: BadSignature."""
        try:
            found = cls.model_validate_json(content)
        except ValidationError as error:
            raise BadSignature(f"is no signature: {error.errors()[0]['msg']}") from None
        if found.dump() != content:
            raise BadSignature("is not written as a signature is")
        return found

    def dump(self) -> bytes:
        return (self.model_dump_json(indent=1) + "\n").encode()

    def check(self, content: bytes) -> None:
        """Raises: BadSignature when the key did not sign these bytes."""
        from cryptography.exceptions import InvalidSignature

        try:
            raw = base64.b64decode(self.signature, validate=True)
            key = load_public_key(self.public_key)
        except (binascii.Error, ValueError, InvalidInput):
            raise BadSignature("its key or its signature is not readable") from None
        if base64.b64encode(raw).decode() != self.signature:
            raise BadSignature("its signature is not written as one is")
        if self.key_id != key_id_of(self.public_key):
            raise BadSignature("its key is not the one that it names")
        try:
            key.verify(raw, content)
        except InvalidSignature:
            raise BadSignature("it is of something else") from None


def sign(private_key: Ed25519PrivateKey, content: bytes) -> Signature:
    public_key = encode_public_key(private_key.public_key())
    return Signature(
        key_id=key_id_of(public_key),
        public_key=public_key,
        signature=base64.b64encode(private_key.sign(content)).decode(),
    )


def key_id_of(public_key: str) -> str:
    """A short name of a key, which is told apart by the whole of it all the same."""
    return hashlib.sha256(public_key.encode()).hexdigest()[:16]


def encode_public_key(key: Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes_raw()).decode()


def load_public_key(text: str) -> Ed25519PublicKey:
    """Raises: InvalidInput."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES or base64.b64encode(raw).decode() != text:
        raise InvalidInput("key", "must be an Ed25519 public key: 32 bytes in base64")
    return Ed25519PublicKey.from_public_bytes(raw)


def read_public_key(text_or_path: str) -> str:
    """A key given as such, or as a file that holds one, in base64 or as PEM.

    Raises: InvalidInput.
    """
    path = Path(text_or_path)
    text = path.read_text() if path.is_file() else text_or_path
    if "-----BEGIN" in text:
        return _of_pem(text)
    load_public_key(text.strip())
    return text.strip()


def _of_pem(text: str) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(text.encode())
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInput("key", "is no Ed25519 public key in PEM")
    return encode_public_key(key)
