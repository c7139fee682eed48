"""What a fresh data directory needs before the first start: the schema, its API keys, and the key
that signs manifests.

A program of its own (`python -m service.bootstrap`), so that the supervisor, which lives as long
as the service, never loads the database's libraries. Reads the keys of the last start, if there
were any, from standard input and writes those that are valid now to standard output, as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from service.auth import MEASURE, SCOPES, create_key, look_up
from service.db import Database
from service.migrate import upgrade
from service.settings import Settings
from service.signing_keys import prepare_signing_key
from service.tenancy import DEFAULT_TENANT


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
    database = Database(database_url).for_tenant(DEFAULT_TENANT)
    try:
        with database.write() as session:
            return Keys(
                api_key=_keep(session, keys.api_key)
                or create_key(session, "bootstrap", scopes=SCOPES),
                agent_key=_keep(session, keys.agent_key)
                or create_key(session, "local agent", scopes=(MEASURE,)),
            )
    finally:
        database.dispose()


def _keep(session: Session, key: str) -> str | None:
    found = look_up(session, key) if key else None
    return key if found is not None and found.refused is None else None


if __name__ == "__main__":
    main()
