"""What every request passes first: it gets an id, its body a limit, and its answer is counted."""

from __future__ import annotations

import logging
import re
import time

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.database.ids import new_id
from service.problems import METHODS, TooLarge, problem_response
from service.telemetry import metrics
from service.telemetry.logs import log_context

MAX_BODY_BYTES = 1024**2
MAX_DECLARATION_BYTES = 4 * 1024**2
MAX_RESULT_BYTES = 64 * 1024**2
REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

logger = logging.getLogger(__name__)


class RequestGuard:
    """Plain ASGI, so that bodies pass through as they arrive."""

    def __init__(self, app: ASGIApp, *, logs_requests: bool = False) -> None:
        self._app = app
        self._logs_requests = logs_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.monotonic()
        has_begun = False

        async def send_with_id(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
                if message["status"] >= 400:
                    await _release(scope)
                self._count(scope, message["status"], time.monotonic() - started)
            await send(message)

        with log_context(request_id=request_id):
            try:
                await self._answer(scope, receive, send_with_id)
            except Exception:
                if not has_begun:  # answered further out, past this place
                    self._count(scope, 500, time.monotonic() - started)
                raise

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            # PostgreSQL has no such character; nothing that there is has it in its name.
            reason = "the path and the query must hold no NUL character"
            response = problem_response(Request(scope), 400, "bad_request", reason)
            await response(scope, receive, send)
            return
        limit = _limit(scope["method"], scope["path"])
        if limit is not None and _announced_bytes(Headers(scope=scope)) > limit:
            error = TooLarge(_reason(limit))
            response = problem_response(Request(scope), error.status, error.code, error.detail)
            await response(scope, receive, send)
            return
        try:
            await self._app(scope, _limited(receive, limit), send)
        finally:
            await _release(scope)

    def _count(self, scope: Scope, status: int, took_s: float) -> None:
        """By the route's template: ids in a label would be without end."""
        route = getattr(scope.get("route"), "path_format", None) or "unmatched"
        method = scope["method"] if scope["method"] in METHODS else "other"
        metrics.REQUESTS.labels(method, route, str(status)).inc()
        metrics.REQUEST_SECONDS.labels(method, route).observe(took_s)
        if self._logs_requests:
            fields = {"method": method, "route": route, "status": status}
            took_ms = round(1000 * took_s, 1)
            logger.info("answered", extra={"fields": {**fields, "took_ms": took_ms}})


async def _release(scope: Scope) -> None:
    """A request that failed may be sent again at once; once it took effect, nothing is left to
    give back."""
    release = scope["state"].pop("release", None)
    if release is not None:
        await run_in_threadpool(release)


def _limit(method: str, path: str) -> int | None:
    if method == "PUT" and path.startswith(("/v1/uploads/", "/uploads/")):
        return None  # streamed to disk, and held to the size that was declared
    if path in ("/v1/uploads", "/uploads"):
        return MAX_DECLARATION_BYTES
    return MAX_RESULT_BYTES if path.startswith("/v1/measurement-jobs/") else MAX_BODY_BYTES


def _announced_bytes(headers: Headers) -> int:
    announced = headers.get("content-length", "")
    return int(announced) if announced.isdigit() and len(announced) < 20 else 0


def _limited(receive: Receive, limit: int | None) -> Receive:
    """A body without a length is cut off where it passes the limit."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if limit is not None and received > limit:
            # FastAPI lets only this kind of error pass while it reads a body.
            raise HTTPException(TooLarge.status, _reason(limit))
        return message

    return receive_limited


def _reason(limit: int) -> str:
    return f"the body has more than {limit} bytes"
