"""Jobs in every state that a page has to bear, in a service that runs nothing."""

from __future__ import annotations

from dataclasses import dataclass

from service.database.db import Database
from service.database.models import Tenant
from service.jobs.job_states import conclude_job
from service.jobs.lifecycle import request_cancel
from service.tenants.auth import create_key
from service.tenants.tenancy import DEFAULT_TENANT
from tests.e2e.browser.specimens import Row, Specimen, many_evaluations

MANY = 10_000
LONG_NAME = (
    "a search that somebody described as carefully as a name of two hundred characters lets one, "
    "with_a_word_that_no_line_of_a_narrow_screen_can_break_where_it_would_like_to_be_broken, and "
    "more words"
)
DIVERGED = (
    "the loss became NaN or infinite at training step 17; the last checkpoint is good: "
    "try a lower learning rate"
)
LONG_LABELS = {
    "team": "retrieval",
    "cost-centre": "4711",
    "purpose": "what_a_label_holds_when_somebody_pastes_a_whole_branch_name_into_it",
}


@dataclass(frozen=True, kw_only=True)
class Exhibition:
    """Ids of jobs. The key of a tenant that has nothing is beside them."""

    queued: str
    failed: str
    one: str
    many: str
    growing: str
    cancelled: str
    none_feasible: str
    newcomer_key: str


def exhibit(database: Database, real: Specimen) -> Exhibition:
    """Written into an empty database.

    Args:
        real: a job that succeeded.
    """
    search = [row for row in real.evaluations if row["source"] == "search"]
    rest = [row for row in real.evaluations if row["source"] != "search"]
    slowest = max(search, key=lambda row: row["metrics"]["latency_ms"])
    many = many_evaluations(slowest, MANY)
    wide = {**real.job["spec"], "search": {**real.job["spec"]["search"], "population": 100}}
    wide["search"]["generations"] = MANY // 100
    wide_job = real.as_it_is(spec=wide)
    searching = real.before("search")
    over = [slower(row, 5.0) for row in search]
    return Exhibition(
        none_feasible=_failed(
            database,
            searching.with_evaluations(over).named("all of them too slow").write(database),
            "budget_unreachable",
            "targets[0].budget_ratio: no network that was evaluated keeps the budget",
        ),
        cancelled=_cancelled(
            database, real.before("onboard").named("stopped early").write(database)
        ),
        failed=_failed(
            database,
            real.before("supernet").named("diverged").write(database),
            "training_diverged",
            DIVERGED,
        ),
        one=searching.with_evaluations(search[:1]).named("one network so far").write(database),
        growing=wide_job.before("search")
        .with_evaluations(many)
        .named("ten thousand networks, and more")
        .write(database),
        many=wide_job.with_evaluations([*many, *rest])
        .named("ten thousand networks")
        .write(database),
        queued=real.queued().named(LONG_NAME, **LONG_LABELS).write(database),
        newcomer_key=new_tenant(database, "newcomer"),
    )


def new_tenant(database: Database, name: str) -> str:
    """A tenant that has nothing; a key of it."""
    with database.write() as session:
        session.add(Tenant(id=f"ten_{name}", name=name))
        return create_key(session, f"{name}'s key", tenant_id=f"ten_{name}")


def slower(row: Row, factor: float) -> Row:
    """An evaluation of a network that keeps no budget."""
    metrics = dict(row["metrics"])
    for name in ("latency_ms", "latency_lower_ms", "latency_upper_ms"):
        metrics[name] *= factor
    metrics["latencies_ms"] = [factor * ms for ms in metrics["latencies_ms"]]
    metrics["within_bounds"] = [False for _ in metrics["latencies_ms"]]
    return {**row, "metrics": metrics}


def _failed(database: Database, job_id: str, code: str, reason: str) -> str:
    with database.for_tenant(DEFAULT_TENANT).write() as session:
        conclude_job(session, job_id, "failed", code=code, message=reason)
    return job_id


def _cancelled(database: Database, job_id: str) -> str:
    with database.for_tenant(DEFAULT_TENANT).write() as session:
        request_cancel(session, job_id)
        conclude_job(session, job_id, "cancelled")
    return job_id
