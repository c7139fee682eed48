"""What every request passes first: it gets an id, and its body a limit."""

from __future__ import annotations

import re

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.ids import new_id
from service.problems import TooLarge, problem_response

MAX_BODY_BYTES = 1024**2
MAX_RESULT_BYTES = 64 * 1024**2
REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class RequestGuard:
    """Plain ASGI, so that bodies pass through as they arrive."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        limit = _limit(scope["method"], scope["path"])

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
                if message["status"] >= 400:
                    await _release(scope)
            await send(message)

        if limit is not None and _announced_bytes(headers) > limit:
            error = TooLarge(_reason(limit))
            response = problem_response(Request(scope), error.status, error.code, error.detail)
            await response(scope, receive, send_with_id)
            return
        try:
            await self._app(scope, _limited(receive, limit), send_with_id)
        finally:
            await _release(scope)


async def _release(scope: Scope) -> None:
    """A request that failed may be sent again at once; once it took effect, nothing is left to
    give back."""
    release = scope["state"].pop("release", None)
    if release is not None:
        await run_in_threadpool(release)


def _limit(method: str, path: str) -> int | None:
    if method == "PUT" and path.startswith("/v1/uploads/"):
        return None  # streamed to disk, and held to the size that was declared
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
