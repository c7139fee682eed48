"""What a browser shows of an error: a page, a part of one, or the way to sign in."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from service.schemas import Problem
from service.web.protection import SAFE_METHODS, is_page
from service.web.rendering import render
from service.web.sign_in import SIGN_IN, own_path
from service.web.viewers import token_of

HTML = "text/html"
UNAUTHENTICATED = 401


def draw_problem(
    request: Request, problem: Problem, headers: Mapping[str, str]
) -> Response | None:
    """None for a program, which reads problem+json."""
    if not is_page(request.url.path) or HTML not in request.headers.get("accept", ""):
        return None
    if "hx-request" in request.headers:
        return _part(request, problem, headers)
    if problem.status == UNAUTHENTICATED and request.method in SAFE_METHODS:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(_sign_in_url(request, here), status_code=303)
    return render(
        request,
        None,
        "problem.html",
        status_code=problem.status,
        headers=_shown(headers),
        problem=problem,
    )


def _part(request: Request, problem: Problem, headers: Mapping[str, str]) -> Response:
    """In place of what was asked for. A page that only looked goes to the sign-in by itself; one
    that somebody typed into stays."""
    more: dict[str, str] = {}
    if problem.status == UNAUTHENTICATED and request.method in SAFE_METHODS:
        page = urlsplit(request.headers.get("hx-current-url", ""))
        here = page.path + (f"?{page.query}" if page.query else "")
        more["HX-Redirect"] = _sign_in_url(request, here)
    return render(
        request,
        None,
        "problem_box.html",
        status_code=problem.status,
        headers={**_shown(headers), **more},
        problem=problem,
    )


def _sign_in_url(request: Request, path: str) -> str:
    ended = "&ended" if token_of(request) else ""
    return f"{SIGN_IN}?next={quote(own_path(path), safe='')}{ended}"


def _shown(headers: Mapping[str, str]) -> dict[str, str]:
    """A browser would ask for a password of its own."""
    return {name: value for name, value in headers.items() if name != "WWW-Authenticate"}
