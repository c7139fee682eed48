"""Jobs to be looked at: the rows of a real one, written elsewhere with something changed.

What a page has to bear (ten thousand networks, a single one, none, a failure) would take hours to
come by; the rows are the service's own, so that a page cannot tell.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from sqlalchemy import insert, inspect, select

from service.database.db import Database
from service.database.ids import new_id
from service.database.models import ArtifactRow, Base, EvaluationRow, Event, Job, Step
from service.tenants.tenancy import DEFAULT_TENANT

Row = dict[str, Any]
PREFIXES = {Job: "job", Step: "step", EvaluationRow: "eval", ArtifactRow: "art"}
FOR_EVER_S = 10 * 365 * 86_400.0


@dataclass(frozen=True, kw_only=True)
class Specimen:
    job: Row
    steps: Sequence[Row]
    events: Sequence[Row]
    evaluations: Sequence[Row]
    artifacts: Sequence[Row]

    @classmethod
    def read(cls, database: Database, job_id: str) -> Self:
        (job,) = _rows(database, Job, job_id)
        return cls(
            job=job,
            steps=_rows(database, Step, job_id),
            events=sorted(_rows(database, Event, job_id), key=lambda row: row["seq"]),
            evaluations=_rows(database, EvaluationRow, job_id),
            artifacts=_rows(database, ArtifactRow, job_id),
        )

    def write(self, database: Database) -> str:
        """Under a new id, which is returned, with its events counted anew."""
        job_id, tenant_id = new_id("job"), {"tenant_id": DEFAULT_TENANT}
        events = [{**row, "seq": seq} for seq, row in enumerate(self.events, start=1)]
        job = {**self.job, "id": job_id, "last_event_seq": len(events), **tenant_id}
        step_ids = {row["id"]: new_id("step") for row in self.steps}
        steps = [{**row, "joins_id": step_ids.get(row["joins_id"])} for row in self.steps]
        artifacts = [{**row, **tenant_id} for row in self.artifacts]
        with database.for_tenant(DEFAULT_TENANT).write() as session:
            session.execute(insert(Job), [job])
            for table, rows in (
                (Step, steps),
                (Event, events),
                (EvaluationRow, self.evaluations),
                (ArtifactRow, artifacts),
            ):
                own = [_placed(table, row, job_id) for row in rows]
                if own:
                    session.execute(insert(table), own)
        return job_id

    def as_it_is(self, **changes: Any) -> Specimen:
        """With another value in some columns of the job."""
        return replace(self, job={**self.job, **changes})

    def named(self, name: str, **labels: str) -> Specimen:
        spec = {**self.job["spec"], "name": name, "labels": labels}
        return self.as_it_is(name=name, labels=labels, spec=spec)

    def before(self, stage: str) -> Specimen:
        """As it was when a stage began: nothing of what came then, and of that stage one step,
        which runs for ever."""
        place = next(
            i
            for i, event in enumerate(self.events)
            if event["kind"] == "stage" and event["data"]["stage"] == stage
        )
        at = self.events[place]["at"]
        step = next(row for row in self.steps if row["kind"] == stage)
        return replace(
            self,
            job={**self.job, "state": "running", "stage": stage, "result": None}
            | {"finished_at": None, "progress_done": 0, "progress_total": None},
            steps=[
                *(row for row in self.steps if row["created_at"] < step["created_at"]),
                {**step, "state": "running", "lease_until": at + FOR_EVER_S}
                | {"finished_at": None, "output": None, "owner": "nobody"},
            ],
            events=self.events[: place + 1],
            evaluations=[],
            artifacts=[],
        )

    def queued(self) -> Specimen:
        """As it was when it was created."""
        first = min(self.steps, key=lambda row: row["created_at"])
        return replace(
            self,
            job={**self.job, "state": "queued", "stage": None, "result": None}
            | {"started_at": None, "finished_at": None}
            | {"progress_done": None, "progress_total": None, "progress_unit": None},
            steps=[
                {**first, "state": "ready", "attempts": 0, "output": None}
                | {"started_at": None, "finished_at": None, "lease_until": None, "owner": None}
            ],
            events=self.events[:1],
            evaluations=[],
            artifacts=[],
        )

    def with_evaluations(self, rows: Iterable[Row]) -> Specimen:
        """These, and the event of each, told after all others."""
        rows = list(rows)
        others = [event for event in self.events if event["kind"] != "evaluation"]
        return replace(self, evaluations=rows, events=[*others, *map(event_of, rows)])


def event_of(row: Mapping[str, Any]) -> Row:
    """What the log of the job says of an evaluation."""
    told = ("source", "generation", "index_in_generation", "fingerprint", "metrics")
    return {
        "at": row["created_at"],
        "kind": "evaluation",
        "level": "info",
        "message": f"{row['source']} network {row['fingerprint']}",
        "data": {name: row[name] for name in told},
    }


def many_evaluations(like: Row, num: int, *, seed: int = 0) -> list[Row]:
    """Of a search that ran for long: generations of a hundred, each a little better."""
    rng = random.Random(seed)
    slowest_ms = like["metrics"]["latency_ms"]
    return [
        _evaluated(like, rng, place, slowest_ms * math.exp(rng.uniform(-2.5, 0.7)), num)
        for place in range(num)
    ]


def _evaluated(like: Row, rng: random.Random, place: int, latency_ms: float, num: int) -> Row:
    reachable = 1 - 0.5 * math.exp(-1.2 * latency_ms / like["metrics"]["latency_ms"])
    lost = abs(rng.gauss(0, 0.12 - 0.06 * place / num))
    metrics = {
        **like["metrics"],
        "quality": max(0.0, reachable - lost),
        "latency_ms": latency_ms,
        "latency_lower_ms": 0.9 * latency_ms,
        "latency_upper_ms": 1.1 * latency_ms,
        "latencies_ms": [latency_ms for _ in like["metrics"]["latencies_ms"]],
    }
    if "within_bounds" in metrics:
        is_within = 1.1 * latency_ms <= like["metrics"]["latency_ms"]
        metrics["within_bounds"] = [is_within for _ in metrics["within_bounds"]]
    return {
        **like,
        "source": "search",
        "generation": place // 100,
        "index_in_generation": place % 100,
        "fingerprint": f"{rng.getrandbits(64):016x}",
        "metrics": metrics,
        "created_at": like["created_at"] + place / num,
    }


def _rows(database: Database, table: type[Base], job_id: str) -> list[Row]:
    key = table.id if table is Job else table.job_id  # type: ignore[attr-defined]
    columns = [column.key for column in inspect(table).columns]
    with database.for_tenant(DEFAULT_TENANT).read() as session:
        found = session.scalars(select(table).where(key == job_id))
        return [{name: getattr(row, name) for name in columns} for row in found]


def _placed(table: type[Base], row: Row, job_id: str) -> Row:
    prefix = PREFIXES.get(table)
    own = {} if prefix is None else {"id": new_id(prefix)}
    return {**row, "job_id": job_id, **own}
