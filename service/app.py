"""The API as one application: `uvicorn service.app:create_app --factory`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from service import problems
from service.api import (
    agents,
    artifacts,
    devices,
    health,
    keys,
    measurement_jobs,
    measurements,
    onboardings,
    predictors,
    search_jobs,
    uploads,
)
from service.api.dependencies import Parts
from service.artifacts import FilesystemArtifactStore
from service.db import Database
from service.dispatcher import Dispatcher
from service.guard import RequestGuard
from service.notifier import Notifier
from service.queue import CeleryQueue, JobQueue
from service.settings import Settings

ROUTERS = (
    health,
    search_jobs,
    uploads,
    devices,
    measurements,
    predictors,
    onboardings,
    measurement_jobs,
    agents,
    artifacts,
    keys,
)


def create_app(settings: Settings | None = None, queue: JobQueue | None = None) -> FastAPI:
    """The application with its dispatcher, which sends the wake-ups of what is committed here."""
    parts = make_parts(settings or Settings(), queue)
    app = FastAPI(
        title="Snugnet",
        description="Fits a transformer into a latency budget on the hardware it will run on",
        version="1",
        lifespan=_lifespan,
        responses=problems.RESPONSES,
    )
    app.state.parts = parts
    app.add_middleware(RequestGuard)
    problems.install(app)
    for module in ROUTERS:
        app.include_router(module.router)
    return app


def make_parts(settings: Settings, queue: JobQueue | None = None) -> Parts:
    return Parts(
        settings=settings,
        database=Database(settings.database_url),
        store=FilesystemArtifactStore(settings.blobs_dir),
        queue=queue or CeleryQueue(settings),
        notifier=Notifier(),
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    settings = parts.settings
    dispatcher = Dispatcher(
        parts.database,
        parts.queue,
        reconcile_seconds=settings.reconcile_seconds,
        drift_check_hours=settings.drift_check_hours,
    )
    dispatcher.start()
    try:
        yield
    finally:
        await run_in_threadpool(dispatcher.stop)
        if isinstance(parts.queue, CeleryQueue):
            parts.queue.close()
        parts.database.dispose()
