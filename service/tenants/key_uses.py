"""When keys and sessions were last used, noted behind the requests: readers must not wait for
writers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.database.db import Database
from service.tenants import auth

logger = logging.getLogger(__name__)

Note = Callable[[Session, str], None]


class KeyUses:
    """Of one process; callable from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._notes: dict[str, threading.Thread] = {}

    def note(self, used_id: str, write: Note = auth.note_use) -> None:
        """Soon; one that cannot be written is forgotten, the next request tries again.

        Args:
            write: of another thing than a key, how its use is noted.
        """
        with self._lock:
            if used_id in self._notes:
                return
            # A daemon: the process must be able to end while the database hangs.
            note = threading.Thread(target=self._write, args=(used_id, write), daemon=True)
            self._notes[used_id] = note
            note.start()

    def close(self) -> None:
        """Wait for those that are under way."""
        with self._lock:
            notes = list(self._notes.values())
        for note in notes:
            note.join()

    def _write(self, used_id: str, write: Note) -> None:
        try:
            with self._database.write() as session:
                write(session, used_id)
        except SQLAlchemyError as error:
            logger.warning("could not note the use of %s: %s", used_id, error)
        finally:
            with self._lock:
                del self._notes[used_id]
