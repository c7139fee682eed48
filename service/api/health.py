"""Is the server there, is it ready, how is it, and what is it?"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Request, Response

from service.api.dependencies import Service
from service.problems import ProblemError, Unauthenticated
from service.schemas import Health, ServerInfo
from service.telemetry import metrics
from service.telemetry.metrics_access import is_allowed

router = APIRouter(tags=["server"])


class NotReady(ProblemError):
    code = "not_ready"
    status = 503


@router.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz")
async def readyz(parts: Service) -> Health:
    """The broker answers, and the database does and has the schema that this version needs."""
    faults = await parts.readiness.faults()
    if faults:
        raise NotReady("; ".join(faults))
    return Health()


@router.get("/metrics", include_in_schema=False)
def read_metrics(request: Request, parts: Service) -> Response:
    """For Prometheus: of this process and of the database."""
    host = request.client.host if request.client else None
    if not is_allowed(parts.settings, host, request.headers):
        raise Unauthenticated("the metrics need their own key: SNUGNET_METRICS_KEY of this server")
    content = metrics.exposition() + parts.metrics.exposition()
    return Response(content, media_type=metrics.CONTENT_TYPE)


@router.get("/v1/server-info")
def info(parts: Service) -> ServerInfo:
    return ServerInfo(name="snugnet", version=_version(), allows_hub=parts.settings.allow_hub)


def _version() -> str:
    try:
        return version("snugnet")
    except PackageNotFoundError:
        return "unknown"
