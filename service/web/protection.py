"""What keeps other sites out of the pages: headers on every answer, and two questions to whoever
changes something."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders, QueryParams
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import ProblemError

CSRF_FIELD = "csrf_token"
CSRF_HEADER = "X-CSRF-Token"
FORM_TYPE = "application/x-www-form-urlencoded"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

# These answer programs.
_NO_PAGES = ("/v1/", "/openapi.json", "/healthz", "/readyz", "/metrics")


class CrossSite(ProblemError):
    """Another site may have sent this request in the viewer's name."""

    code = "cross_site"
    status = 403


class StalePage(ProblemError):
    """The page was made for another session, such as the one before the viewer signed in again."""

    code = "stale_page"
    status = 403

    def __init__(self, expected: str) -> None:
        super().__init__(
            "the page is of an earlier session, and nothing was changed; send it again, or load "
            "the page anew"
        )
        self._expected = expected

    @property
    def headers(self) -> dict[str, str]:
        """By which a page of this server can go on; no other site can read them."""
        return {CSRF_HEADER: self._expected}


class PageHeaders:
    """Adds them to whatever a browser may show, files and redirects included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_page(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                protect(MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, send_protected)


def is_page(path: str) -> bool:
    """Whether people look at it in a browser."""
    return not path.startswith(_NO_PAGES)


def protect(headers: MutableHeaders) -> None:
    """A route may have chosen its own, such as how long a file is kept."""
    for name, value in HEADERS.items():
        if name not in headers:
            headers[name] = value


def check_origin(request: Request) -> None:
    """Of a request that changes something.

    Raises: CrossSite unless a page of this server sent it.
    """
    # Browsers that know where a request comes from say so where the connection is private.
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        is_own = site == "same-origin"
    else:
        # The host alone: behind a proxy that ends TLS, the scheme is another one.
        origin = request.headers.get("origin", "")
        is_own = origin != "" and urlsplit(origin).netloc == request.headers.get("host")
    if not is_own:
        raise CrossSite("the request comes from another site; nothing was changed")


async def check_csrf_token(request: Request, expected: str) -> None:
    """In a header, or in a form's field.

    Raises: StalePage.
    """
    given = request.headers.get(CSRF_HEADER, "")
    if not given and request.headers.get("content-type", "").startswith(FORM_TYPE):
        given = (await read_form(request)).get(CSRF_FIELD, "")
    if not secrets.compare_digest(given.encode(), expected.encode()):
        raise StalePage(expected)


async def read_form(request: Request) -> QueryParams:
    """The fields of a form; several may have one name. A field that nobody filled is empty."""
    return QueryParams((await request.body()).replace(b"%00", b""))
