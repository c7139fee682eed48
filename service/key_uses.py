"""When keys were last used, noted behind the requests: readers must not wait for writers."""

from __future__ import annotations

import logging
import threading

from sqlalchemy.exc import SQLAlchemyError

from service import auth
from service.db import Database

logger = logging.getLogger(__name__)


class KeyUses:
    """Of one process; callable from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._notes: dict[str, threading.Thread] = {}

    def note(self, key_id: str) -> None:
        """Soon; one that cannot be written is forgotten, the next request tries again."""
        with self._lock:
            if key_id in self._notes:
                return
            # A daemon: the process must be able to end while the database hangs.
            note = threading.Thread(target=self._write, args=(key_id,), daemon=True)
            self._notes[key_id] = note
            note.start()

    def close(self) -> None:
        """Wait for those that are under way."""
        with self._lock:
            notes = list(self._notes.values())
        for note in notes:
            note.join()

    def _write(self, key_id: str) -> None:
        try:
            with self._database.write() as session:
                auth.note_use(session, key_id)
        except SQLAlchemyError as error:
            logger.warning("could not note the use of %s: %s", key_id, error)
        finally:
            with self._lock:
                del self._notes[key_id]
