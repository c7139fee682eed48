"""The key that signs manifests, and the public keys of all that ever did.

Each host that signs has a private key in a file: its own, made when it is first needed, or one
that was handed to it. Its public key is noted in the database, which only those who run the
service can write; so there may be several, and an old one stays known after a new one took over.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from search.errors import InvalidInput
from service.artifacts.signatures import Signature, encode_public_key, key_id_of, sign
from service.database.db import Database, insert_into
from service.database.models import SigningKeyRow
from service.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FIELD = "SNUGNET_SIGNING_KEY_FILE"


def sign_content(settings: Settings, database: Database, content: bytes) -> Signature:
    """With this host's key, which is known to the service afterwards.

    Raises: InvalidInput when the settings name a file that is no key.
    """
    signature = sign(load_signing_key(settings), content)
    _note(database, signature.public_key)
    return signature


def prepare_signing_key(settings: Settings, database: Database) -> None:
    """Make the key where there is none, and let it be known before it has signed anything.

    Raises: InvalidInput.
    """
    _note(database, encode_public_key(load_signing_key(settings).public_key()))


def load_signing_key(settings: Settings) -> Ed25519PrivateKey:
    """Raises: InvalidInput when the settings name a file that is no key."""
    if settings.signing_key_file is not None:
        return _load(settings.signing_key_file)
    path = settings.data_dir / "signing.key"
    if not path.exists():
        _make(path)
    return _load(path)


def list_signing_keys(session: Session) -> list[SigningKeyRow]:
    """Newest first."""
    query = select(SigningKeyRow).order_by(SigningKeyRow.created_at.desc(), SigningKeyRow.id)
    return list(session.scalars(query))


def _note(database: Database, public_key: str) -> None:
    key_id = key_id_of(public_key)
    with database.read() as session:
        if session.get(SigningKeyRow, key_id) is not None:
            return
    with database.write() as session:
        new = insert_into(session, SigningKeyRow).values(id=key_id, public_key=public_key)
        session.execute(new.on_conflict_do_nothing())


def _load(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InvalidInput(FIELD, f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(FIELD, f"{path} is no Ed25519 private key in PEM without a password")
    return key


def _make(path: Path) -> None:
    """Of several processes that do this at once, one decides."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".signing-key-")  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink()
