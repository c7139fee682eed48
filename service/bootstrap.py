"""What a fresh data directory needs before the first start: the schema, and a first API key.

A program of its own (`python -m service.bootstrap`), so that the supervisor, which lives as long
as the service, never loads the database's libraries. Reads the key of the last start, if there was
one, from standard input and writes the key that is valid now to standard output.
"""

from __future__ import annotations

import sys

from service.auth import create_key, find_key
from service.db import Database
from service.migrate import upgrade
from service.settings import Settings


def main() -> None:
    sys.stdout.write(prepare(Settings().database_url, sys.stdin.read().strip()) + "\n")


def prepare(database_url: str, key: str) -> str:
    """Migrate the database; return `key`, or a new one when the database does not know it."""
    upgrade(database_url)
    database = Database(database_url)
    try:
        with database.write() as session:
            if key and find_key(session, key) is not None:
                return key
            return create_key(session, "bootstrap")
    finally:
        database.dispose()


if __name__ == "__main__":
    main()
