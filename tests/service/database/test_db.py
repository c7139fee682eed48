from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from service.database.db import Database, epoch_now
from service.database.models import Device, Step


def test_the_databases_clock_counts_epoch_seconds(database: Database) -> None:
    with database.read() as session:
        now = session.execute(select(epoch_now())).scalar_one()
    assert now == pytest.approx(time.time(), abs=3600)


def test_the_clock_is_known_to_postgresql() -> None:
    sql = str(select(epoch_now()).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
    assert "clock_timestamp()" in sql


def test_sqlite_is_set_up_for_several_processes(data_dir: Path) -> None:
    database = Database(f"sqlite:///{data_dir / 'snugnet.db'}")
    with database.read() as session:
        pragma = {
            name: session.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragma == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "busy_timeout": 15_000,
    }
    database.dispose()


def test_a_reader_is_not_kept_waiting_by_a_writer(database: Database) -> None:
    with database.write() as writer:
        writer.add(Device(name="a", identity={}, fingerprint=""))
        writer.flush()
        with database.read() as reader:
            assert reader.scalars(select(Device)).all() == []


def test_writers_queue_up_instead_of_failing(database: Database) -> None:
    def add(name: str) -> None:
        with database.write() as session:
            assert session.scalars(select(Device.name)).all() is not None  # reads, then writes
            session.add(Device(name=name, identity={}, fingerprint=""))

    threads = [threading.Thread(target=add, args=(f"d{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert len(session.scalars(select(Device)).all()) == 8


def test_a_block_that_raises_is_rolled_back(database: Database) -> None:
    def add_and_fail() -> None:
        with database.write() as session:
            session.add(Device(name="a", identity={}, fingerprint=""))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        add_and_fail()
    with database.read() as session:
        assert session.scalars(select(Device)).all() == []


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(Step(job_id="job_unknown", kind="prepare", input={}))
