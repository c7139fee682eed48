"""Pages out of templates."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.reports.html import FILTERS, TESTS
from service.reports.html import TEMPLATES as REPORTS
from service.web.protection import CSRF_FIELD, protect
from service.web.static_files import static_files

if TYPE_CHECKING:
    from service.web.viewers import Viewer

LEAST_ZIPPED_BYTES = 1400
"""Less fits into one packet as it is."""

TEMPLATES = Path(__file__).with_name("templates")
NAVIGATION = (("Jobs", "/jobs"), ("Devices", "/devices"), ("Compare", "/compare"))


@cache
def environment() -> Environment:
    """Everything that is put into a page is escaped; a name that is not there is an error."""
    found = Environment(
        loader=FileSystemLoader([TEMPLATES, REPORTS]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(FILTERS)
    found.tests.update(TESTS)
    found.globals.update(static=static_files().url, navigation=NAVIGATION, csrf_field=CSRF_FIELD)
    return found


def render(
    request: Request,
    viewer: Viewer | None,
    template: str,
    *,
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: object,
) -> HTMLResponse:
    """A page, or a part of one.

    Args:
        viewer: None where nobody is signed in.
        context: what the template names, beside `viewer`, `csrf_token`, `path` and `here`, the
            path with its query.
    """
    query = request.url.query
    html = (
        environment()
        .get_template(template)
        .render(
            viewer=viewer,
            csrf_token=viewer.csrf_token if viewer is not None else "",
            path=request.url.path,
            here=request.url.path + (f"?{query}" if query else ""),
            **context,
        )
    )
    response = _zipped(request, HTMLResponse(html, status_code, dict(headers or {})))
    # Also where the answer passes no middleware any more: an error that nobody expected.
    protect(response.headers)
    return response


def _zipped(request: Request, response: HTMLResponse) -> HTMLResponse:
    """Smaller on its way, where the browser reads that; thousands of candidates are a tenth.

    The cookie is never sent for another site's request: nobody can make a viewer's browser ask for
    guesses at the token beside it, and compare the sizes.
    """
    response.headers["Vary"] = "Accept-Encoding"
    if len(response.body) < LEAST_ZIPPED_BYTES:
        return response
    if "gzip" in request.headers.get("accept-encoding", ""):
        response.body = gzip.compress(response.body, compresslevel=5, mtime=0)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Content-Length"] = str(len(response.body))
    return response
