"""Is the server there, is it ready, and what is it?"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError

from service.api.dependencies import Service
from service.migrate import is_current
from service.problems import ProblemError
from service.schemas import Health, ServerInfo

router = APIRouter(tags=["server"])


class NotReady(ProblemError):
    code = "not_ready"
    status = 503


@router.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz")
def readyz(parts: Service) -> Health:
    """The database answers and has the schema that this version needs."""
    try:
        is_ready = is_current(parts.database.engine)
    except SQLAlchemyError:
        is_ready = False
    if not is_ready:
        raise NotReady("the database is away, or its migrations have not been run")
    return Health()


@router.get("/v1/server-info")
def server_info() -> ServerInfo:
    return ServerInfo(name="snugnet", version=_version())


def _version() -> str:
    try:
        return version("snugnet")
    except PackageNotFoundError:
        return "unknown"
