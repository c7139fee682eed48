"""Readers of events are woken by what concerns them, at the cost of one query for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event

from service.database.db import Database
from service.jobs import lifecycle
from service.jobs.event_watch import EventWatch
from service.jobs.events import append_event
from service.steps.notifier import Notifier
from tests.service.helpers import create_job, job_of

PATIENCE_SECONDS = 20.0
SOON_SECONDS = 1.0  # longer than it takes to look twice


@pytest.fixture
def notifier() -> Notifier:
    return Notifier()


@pytest.fixture
def watch(database: Database, notifier: Notifier) -> EventWatch:
    return EventWatch(database, notifier)


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The statements that are executed in the block."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        statements.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield statements
    event.remove(database.engine, "before_cursor_execute", note)


def write(database: Database, job_id: str) -> None:
    with database.write() as session:
        append_event(session, job_id, "log", "news")


def seen(database: Database, job_id: str) -> int:
    return job_of(database, job_id).last_event_seq


async def woken(
    waiting: Awaitable[None], after: Callable[[], None], within_s: float = PATIENCE_SECONDS
) -> bool:
    """Whether it returns after something was done."""
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0.1)  # it waits by now
    await asyncio.to_thread(after)
    done, _ = await asyncio.wait({task}, timeout=within_s)
    task.cancel()
    return bool(done)


def test_an_event_that_another_process_wrote_wakes_its_readers(
    database: Database, watch: EventWatch
) -> None:
    job_id = create_job(database)
    waiting = watch.wait(job_id, after=seen(database, job_id), wait_s=PATIENCE_SECONDS)
    assert asyncio.run(woken(waiting, lambda: write(database, job_id)))


def test_an_event_that_was_there_already_wakes_too(database: Database, watch: EventWatch) -> None:
    job_id = create_job(database)
    waiting = watch.wait(job_id, after=seen(database, job_id) - 1, wait_s=PATIENCE_SECONDS)
    assert asyncio.run(woken(waiting, lambda: None))


def test_news_of_another_job_wake_nobody(
    database: Database, watch: EventWatch, notifier: Notifier
) -> None:
    job_id, other = create_job(database), create_job(database)

    def act() -> None:
        write(database, other)
        notifier.notify()

    waiting = watch.wait(job_id, after=seen(database, job_id), wait_s=PATIENCE_SECONDS)
    assert not asyncio.run(woken(waiting, act, within_s=SOON_SECONDS))


def test_the_end_of_a_job_and_its_deletion_wake(database: Database, watch: EventWatch) -> None:
    job_id = create_job(database)

    def cancel() -> None:
        with database.write() as session:
            lifecycle.request_cancel(session, job_id)

    def delete() -> None:
        with database.write() as session:
            lifecycle.delete_job(session, job_id)

    far = 1000  # beyond every event that the end brings
    for act in (cancel, delete):
        waiting = watch.wait(job_id, after=far, wait_s=PATIENCE_SECONDS)
        assert asyncio.run(woken(waiting, act))


def test_a_server_that_goes_down_lets_all_go(
    database: Database, watch: EventWatch, notifier: Notifier
) -> None:
    job_id = create_job(database)
    waiting = watch.wait(job_id, after=seen(database, job_id), wait_s=PATIENCE_SECONDS)
    assert asyncio.run(woken(waiting, notifier.close))


def test_many_readers_cost_what_one_does(database: Database, watch: EventWatch) -> None:
    job_ids = [create_job(database) for _ in range(5)]

    async def read() -> None:
        await asyncio.gather(
            *(watch.wait(job_ids[i % 5], after=1000, wait_s=SOON_SECONDS) for i in range(100))
        )

    with counted(database) as statements:
        asyncio.run(read())
    looks = [statement for statement in statements if "last_event_seq" in statement]
    assert 1 <= len(looks) <= 5


def test_a_database_that_fails_for_a_while_is_looked_at_again(
    database: Database, notifier: Notifier, tmp_path: Path
) -> None:
    job_id = create_job(database)
    away = Database(f"sqlite:///{tmp_path}")  # a folder cannot be opened
    after = seen(database, job_id)

    def mend() -> None:
        write(database, job_id)
        away.engine = database.engine

    waiting = EventWatch(away, notifier).wait(job_id, after=after, wait_s=PATIENCE_SECONDS)
    assert asyncio.run(woken(waiting, mend))
