"""What must hold once every job has ended, whatever was done to the service meanwhile."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from sqlalchemy import func, select

from service.database.db import Database
from service.database.models import EvaluationRow, Event, Job, MeasurementJob, Step

TERMINAL = ("succeeded", "failed", "cancelled")


def assert_sound(database: Database) -> None:
    """Every job has ended, and left behind neither open work, nor leases, nor gaps."""
    with database.read() as session:
        jobs = session.execute(select(Job.id, Job.state, Job.last_event_seq)).all()
        assert {job.state for job in jobs} <= set(TERMINAL)
        for table in (Step, MeasurementJob):
            states = Counter(session.scalars(select(table.state)))
            assert not states.keys() & {"waiting", "ready", "running"}, (table, states)
            leased = select(func.count()).where(table.lease_until.is_not(None))
            if table is Step:
                assert session.scalar(leased) == 0
        succeeded = select(Job.id).where(Job.state == "succeeded")
        undone = select(Step.id).where(Step.job_id.in_(succeeded), Step.state != "done")
        assert not session.scalars(undone).all()
    for job in jobs:
        assert_events_in_order(database, job.id, job.last_event_seq)
    assert_no_evaluation_twice(database)


def assert_events_in_order(database: Database, job_id: str, last_seq: int) -> None:
    """Numbered without gaps, never back in time, with one end (a retried job has more)."""
    with database.read() as session:
        query = select(Event).where(Event.job_id == job_id).order_by(Event.seq)
        events = list(session.scalars(query))
    assert [event.seq for event in events] == list(range(1, last_seq + 1))
    assert all(before.at <= after.at for before, after in pairwise(events))
    ends = [e.seq for e in events if e.kind == "state" and e.data["state"] in TERMINAL]
    again = [e.seq for e in events if e.message == "the job is tried again"]
    assert len(ends) == len(again) + 1
    assert ends[-1] == last_seq


def assert_no_evaluation_twice(database: Database) -> None:
    """In the table, and in the events that told of them."""
    with database.read() as session:
        rows = session.execute(
            select(
                EvaluationRow.job_id,
                EvaluationRow.source,
                EvaluationRow.generation,
                EvaluationRow.index_in_generation,
            )
        ).all()
        told = Counter(session.scalars(select(Event.job_id).where(Event.kind == "evaluation")))
    assert len(set(rows)) == len(rows)
    assert told == Counter(row.job_id for row in rows)


def num_evaluations(database: Database, job_id: str) -> int:
    with database.read() as session:
        query = select(func.count()).where(EvaluationRow.job_id == job_id)
        return session.execute(query).scalar_one()
