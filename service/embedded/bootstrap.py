"""What a fresh data directory needs before the first start: the schema, its API keys, and the key
that signs manifests.

A program of its own (`python -m service.embedded.bootstrap`), so that the supervisor, which lives
as long as the service, never loads the database's libraries. Reads the keys of the last start, if
there were any, from standard input and writes those that are valid now to standard output, as
JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from search.errors import InvalidInput
from service.artifacts.signing_keys import prepare_signing_key
from service.database.db import Database
from service.database.migrate import upgrade
from service.settings import Settings
from service.tenants.auth import MEASURE, SCOPES, create_key, look_up
from service.tenants.tenancy import DEFAULT_TENANT


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """The user's, which may do everything, and that of the local agent, which may only measure."""

    api_key: str = ""
    agent_key: str = ""


def main() -> None:
    given = json.loads(sys.stdin.read() or "{}")
    settings = Settings()
    keys = prepare(settings.database_url, Keys(**given))
    database = Database(settings.database_url)
    prepare_signing_key(settings, database)
    database.dispose()
    sys.stdout.write(json.dumps(asdict(keys)) + "\n")


def prepare(database_url: str, keys: Keys) -> Keys:
    """Migrate the database; return `keys`, with new ones in place of those that are not good."""
    upgrade(database_url)
    with _writing(database_url) as session:
        return Keys(
            api_key=_good_key(session, keys.api_key, "bootstrap", SCOPES),
            agent_key=_good_key(session, keys.agent_key, "local agent", (MEASURE,)),
        )


def write_key(database_url: str, path: Path, name: str, scopes: Sequence[str]) -> bool:
    """Have a good key in this file, readable by its owner alone; whether it is a new one.

    Raises: InvalidInput when the file can be neither read nor written.
    """
    try:
        given = path.read_text().strip() if path.exists() else ""
        with _writing(database_url) as session:
            key = _good_key(session, given, name, scopes)
        if key != given:
            _write_private(path, key)
    except OSError as error:
        raise InvalidInput(str(path), f"cannot hold a key: {error.strerror}") from None
    return key != given


@contextmanager
def _writing(database_url: str) -> Iterator[Session]:
    database = Database(database_url).for_tenant(DEFAULT_TENANT)
    try:
        with database.write() as session:
            yield session
    finally:
        database.dispose()


def _good_key(session: Session, key: str, name: str, scopes: Sequence[str]) -> str:
    found = look_up(session, key) if key else None
    is_good = found is not None and found.refused is None
    return key if is_good else create_key(session, name, scopes=scopes)


def _write_private(path: Path, key: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    main()
