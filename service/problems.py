"""Every error that leaves the API has the one shape of RFC 9457, whoever raised it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from search.errors import InvalidInput, SnugnetError
from service.schemas import FieldError, Problem
from service.steps.step_types import LeaseLost
from service.store.protocol import BlobNotFound, StoreFull, StoreUnavailable
from service.telemetry import metrics
from service.validation import field_errors

MEDIA_TYPE = "application/problem+json"
DrawProblem = Callable[[Request, Problem, Mapping[str, str]], Response | None]
"""How people are shown an error; None where it is for a program."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

logger = logging.getLogger(__name__)


class ProblemError(SnugnetError):
    """A request cannot be answered: `status` is HTTP's, `code` stays the same for programs."""

    code = "error"
    status = 500
    retry_after_s: int | None = None
    """When it may be worth asking again."""

    def __init__(self, detail: str, errors: Sequence[InvalidInput] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)

    @property
    def headers(self) -> dict[str, str]:
        if self.retry_after_s is not None:
            return {"Retry-After": str(self.retry_after_s)}
        return {"WWW-Authenticate": "Bearer"} if self.status == Unauthenticated.status else {}


class Unauthenticated(ProblemError):
    code = "unauthenticated"
    status = 401


class InsufficientScope(ProblemError):
    code = "insufficient_scope"
    status = 403

    def __init__(self, scopes: Sequence[str]) -> None:
        needed = " or ".join(repr(scope) for scope in scopes)
        super().__init__(f"this API key lacks the scope {needed}")


class NotFound(ProblemError):
    code = "not_found"
    status = 404

    def __init__(self, noun: str, name: str) -> None:
        super().__init__(f"there is no {noun} {name!r}")


class Conflict(ProblemError):
    code = "conflict"
    status = 409


class DeviceInUse(ProblemError):
    """Another agent speaks for this device."""

    code = "device_in_use"
    status = 409


class DeviceRetired(ProblemError):
    code = "device_retired"
    status = 409

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the device {name!r} was retired; it can be brought back, or take another name"
        )


class PreconditionFailed(ProblemError):
    """The thing is not, or no longer, as the caller knows it."""

    code = "precondition_failed"
    status = 412


class TooManyRequests(ProblemError):
    code = "too_many_requests"
    status = 429

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many requests; try again in {retry_after_s} s")
        self.retry_after_s = max(1, retry_after_s)


class HubNotAllowed(ProblemError):
    code = "hub_not_allowed"
    status = 403

    def __init__(self) -> None:
        super().__init__(
            "this server fetches nothing from a hub; upload the files, or have its operator set "
            "SNUGNET_ALLOW_HUB"
        )


class TooLarge(ProblemError):
    code = "too_large"
    status = 413


HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    405: {"Allow": {"schema": {"type": "string"}, "description": "the methods that there are"}},
    429: {"Retry-After": {"schema": {"type": "string"}, "description": "seconds"}},
}


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: what a route may answer beside what it should."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            **({"headers": HEADERS[status]} if status in HEADERS else {}),
        }
        for status in statuses
    }


RESPONSES = described(400, 401, 403, 404, 405, 409, 412, 413, 422, 429, 500, 503)
"""What any route may answer."""
RETRY_SECONDS = 30
"""After which a store that is full or away is worth another try."""
DATABASE_RETRY_SECONDS = 5


def install(app: FastAPI) -> None:
    """Register a handler for each kind of error that can reach the edge."""
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(SnugnetError, _on_snugnet_error)
    app.add_exception_handler(BlobNotFound, _on_missing_blob)
    app.add_exception_handler(StoreUnavailable, _on_unavailable_store)
    app.add_exception_handler(OperationalError, _on_unavailable_database)
    app.add_exception_handler(Exception, _on_unexpected)


def problem_response(
    request: Request,
    status: int,
    code: str,
    detail: str,
    errors: Sequence[InvalidInput] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    request_id = getattr(request.state, "request_id", "")
    problem = Problem(
        title=_title(status),
        status=status,
        detail=detail,
        code=code,
        errors=[FieldError(field=error.field, reason=error.reason) for error in errors],
        request_id=request_id,
    )
    draw: DrawProblem | None = getattr(request.app.state, "draw_problem", None)
    page = draw(request, problem, headers or {}) if draw is not None else None
    if page is not None:
        page.headers["X-Request-ID"] = request_id
        return page
    return JSONResponse(
        problem.model_dump(),
        status_code=status,
        headers={**(headers or {}), "X-Request-ID": request_id},
        media_type=MEDIA_TYPE,
    )


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _slug(title: str) -> str:
    return title.lower().replace(" ", "_").replace("-", "_")


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    is_too_large = error.status_code == TooLarge.status
    code = TooLarge.code if is_too_large else _slug(_title(error.status_code))
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_at(request))
    return problem_response(request, error.status_code, code, str(error.detail), headers=headers)


def _methods_at(request: Request) -> list[str]:
    """All that the path has: Starlette names those of the first route alone. Of routes whose
    paths differ, such as `/{id}:cancel` and `/{id}`, the one that says more is meant."""
    routes: Sequence[APIRoute] = request.app.state.routes
    found = [route for route in routes if route.path_regex.match(request.url.path)]
    meant = max((len(_without_names(route)) for route in found), default=0)
    same = [route for route in found if len(_without_names(route)) == meant]
    methods = {method for route in same for method in route.methods or ()}
    return sorted(methods, key=METHODS.index)


def _without_names(route: APIRoute) -> str:
    return re.sub(r"{.*?}", "", route.path_format)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [_without_place(found) for found in error.errors()]
    invalid = field_errors(errors, _body_model(request))
    detail = "; ".join(str(found) for found in invalid[:3])
    return problem_response(request, 422, InvalidInput.code, detail, invalid)


def _without_place(error: Mapping[str, object]) -> dict[str, object]:
    """FastAPI begins each location with where it looked: body, query, path."""
    location = error["loc"]
    assert isinstance(location, tuple)
    rest = location[1:]
    if error["type"] == "json_invalid":
        rest = ()
    return {**error, "loc": rest}


def _body_model(request: Request) -> type[BaseModel] | None:
    body_field = getattr(request.scope.get("route"), "body_field", None)
    annotation = getattr(getattr(body_field, "field_info", None), "annotation", None)
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None


async def _on_snugnet_error(request: Request, error: Exception) -> Response:
    if isinstance(error, ProblemError):
        return problem_response(
            request, error.status, error.code, error.detail, error.errors, error.headers
        )
    if isinstance(error, InvalidInput):
        return problem_response(request, 422, error.code, str(error), [error])
    if isinstance(error, LeaseLost):
        metrics.STALE_WRITES.labels("agent").inc()
        return problem_response(request, 409, error.code, str(error))
    return await _on_unexpected(request, error)


async def _on_missing_blob(request: Request, error: Exception) -> Response:
    return problem_response(request, 404, NotFound.code, f"there is no blob {str(error)!r}")


async def _on_unavailable_store(request: Request, error: Exception) -> Response:
    """The log has the cause, which may name buckets and folders."""
    logger.error("request %s found the store unavailable: %s", request.state.request_id, error)
    if isinstance(error, StoreFull):
        return problem_response(request, 507, "store_full", "there is no room for more files")
    return problem_response(
        request,
        503,
        "store_unavailable",
        "files cannot be stored or read at the moment",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


async def _on_unavailable_database(request: Request, error: Exception) -> Response:
    """It restarts, is locked for too long, or has no room: nothing was changed."""
    logger.error("request %s found the database unavailable: %s", request.state.request_id, error)
    return problem_response(
        request,
        503,
        "database_unavailable",
        "the database does not answer at the moment; nothing was changed",
        headers={"Retry-After": str(DATABASE_RETRY_SECONDS)},
    )


async def _on_unexpected(request: Request, error: Exception) -> Response:
    """Say nothing of the cause: it may hold paths or data. The log has it, by the request's id."""
    request_id = getattr(request.state, "request_id", "")
    fields = {"request_id": request_id}  # the request's own log context has ended
    logger.error("request %s failed", request_id, exc_info=error, extra={"fields": fields})
    return problem_response(
        request, 500, "internal_error", "the server failed; its log has the cause by request_id"
    )
