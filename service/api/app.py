"""The API as one application: `uvicorn service.api.app:create_app --factory`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from starlette.concurrency import run_in_threadpool

from service import problems
from service.api import (
    agents,
    artifacts,
    audit_log,
    devices,
    dry_runs,
    health,
    keys,
    measurement_jobs,
    measurements,
    onboardings,
    predictors,
    reports,
    search_jobs,
    signing_keys,
    uploads,
    webhooks,
)
from service.api.dependencies import Parts
from service.api.description import describe, operation_id
from service.api.guard import RequestGuard
from service.api.idempotency import REPLAYED_HEADER, AlreadyAnswered
from service.artifacts.collector import Collector
from service.database.db import Database
from service.jobs.event_watch import EventWatch
from service.jobs.finish_times import FinishTimes
from service.settings import Settings
from service.steps.dispatcher import Dispatcher
from service.steps.notifier import Notifier
from service.steps.queue import CeleryQueue, JobQueue
from service.store.opening import open_store
from service.store.protocol import StoreUnavailable
from service.telemetry.metrics_database import DatabaseMetrics
from service.telemetry.readiness import Readiness
from service.tenants.key_uses import KeyUses
from service.tenants.limits import RateLimiter
from service.uploads.checks.checker import Checker
from service.web import router as web
from service.webhooks.webhook_sender import WebhookSender

logger = logging.getLogger(__name__)

# Of one address with keys that are none: each costs a look into the database.
FAILED_SIGN_INS_PER_SECOND = 1.0
FAILED_SIGN_INS_AT_ONCE = 100

# A span for each request but those that look after the process; nothing inside of it.
TELEMETRY: TelemetryConfig = {
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "exclude": lambda scope: scope["path"] in ("/healthz", "/readyz", "/metrics"),
}

ROUTERS = (
    health,
    search_jobs,
    reports,
    dry_runs,
    uploads,
    devices,
    measurements,
    predictors,
    onboardings,
    measurement_jobs,
    agents,
    artifacts,
    signing_keys,
    keys,
    webhooks,
    audit_log,
    *web.PAGES,
)


def create_app(settings: Settings | None = None, queue: JobQueue | None = None) -> FastAPI:
    """The application; by default with a dispatcher, which sends the wake-ups of what is committed
    here."""
    parts = make_parts(settings or Settings(), queue)
    app = FastAPI(
        title="Snugnet",
        description="Fits a transformer into a latency budget on the hardware it will run on",
        version="1",
        lifespan=_lifespan,
        responses=problems.RESPONSES,
        generate_unique_id_function=operation_id,
        redirect_slashes=False,  # a redirect would lose what was to be posted
        # FastAPI's pages of the description load scripts of another host.
        docs_url=None,
        redoc_url=None,
        telemetry=TELEMETRY,
    )
    app.state.parts = parts
    app.add_middleware(RequestGuard, logs_requests=parts.settings.log_requests)
    problems.install(app)
    web.install(app)
    describe(app)
    app.add_exception_handler(AlreadyAnswered, _answer_again)
    for module in ROUTERS:
        app.include_router(module.router)
    routes = [route for module in ROUTERS for route in module.router.routes]
    app.state.routes = [route for route in routes if isinstance(route, APIRoute)]
    return app


async def _answer_again(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AlreadyAnswered)
    return Response(
        error.body,
        status_code=error.status,
        headers={REPLAYED_HEADER: "true"},
        media_type="application/json",
    )


def make_parts(settings: Settings, queue: JobQueue | None = None) -> Parts:
    database, notifier = Database(settings.database_url), Notifier()
    store = open_store(settings)
    queue = queue or CeleryQueue(settings)
    return Parts(
        settings=settings,
        database=database,
        store=store,
        queue=queue,
        notifier=notifier,
        event_watch=EventWatch(database, notifier),
        finish_times=FinishTimes(),
        calls=RateLimiter(settings.calls_per_second, 2 * settings.calls_per_second),
        failed_sign_ins=RateLimiter(FAILED_SIGN_INS_PER_SECOND, FAILED_SIGN_INS_AT_ONCE),
        key_uses=KeyUses(database),
        readiness=Readiness(database, queue),
        metrics=DatabaseMetrics(database),
        checker=Checker(settings, database=database, store=store, notify=notifier.notify),
    )


class _Background(Protocol):
    """Threads that run beside the requests."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    settings = parts.settings
    await run_in_threadpool(_check_store, parts)
    dispatcher = Dispatcher(
        parts.database,
        parts.queue,
        reconcile_seconds=settings.reconcile_seconds,
        drift_check_hours=settings.drift_check_hours,
    )
    sender = WebhookSender(parts.database, settings.webhook_private_hosts)
    collector = Collector(parts.database, parts.store, settings)
    background: list[_Background] = []
    if settings.runs_dispatcher:
        background += [dispatcher, sender, collector]
    if settings.runs_checks:
        background.append(parts.checker)
    for thread in background:
        thread.start()
    try:
        yield
    finally:
        for thread in reversed(background):
            await run_in_threadpool(thread.stop)
        if isinstance(parts.queue, CeleryQueue):
            parts.queue.close()
        await run_in_threadpool(parts.key_uses.close)
        parts.database.dispose()


def _check_store(parts: Parts) -> None:
    """Tell the operator at once; whoever needs it meanwhile is told to come back."""
    try:
        parts.store.check()
    except StoreUnavailable as error:
        logger.error("files cannot be stored or read: %s", error)
