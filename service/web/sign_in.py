"""Signing in by an API key, and out."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams

from service.api.dependencies import Parts, Service, address_of
from service.problems import TooManyRequests
from service.tenants import auth
from service.tenants.audit import record_call
from service.tenants.auth import KnownKey
from service.web import sessions
from service.web.protection import check_origin, read_form
from service.web.rendering import render
from service.web.viewers import AnyViewer, cookie_name, known_session, token_of

HOME = "/jobs"
SIGN_IN = "/sign-in"
# A path of this server: no other host, which `//host` and `/\host` would be, and no header's end.
OWN_PATH = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")
FOR_PAGES = {auth.JOBS_READ, auth.JOBS_WRITE, auth.ARTIFACTS_READ, auth.DEVICES_WRITE}

router = APIRouter(include_in_schema=False)


def _is_own(request: Request) -> None:
    """There is no session yet to have a token of: the browser says where the form was."""
    check_origin(request)


@router.get("/")
def home(request: Request, parts: Service) -> Response:
    is_known = known_session(parts, token_of(request)) is not None
    return RedirectResponse(HOME if is_known else SIGN_IN, status_code=303)


@router.get(SIGN_IN)
def sign_in_form(request: Request, parts: Service) -> Response:
    going_to = own_path(request.query_params.get("next", ""))
    if known_session(parts, token_of(request)) is not None:
        return RedirectResponse(going_to, status_code=303)
    return render(
        request,
        None,
        "sign_in.html",
        going_to=going_to,
        has_ended="ended" in request.query_params,
        reason="",
    )


@router.post(SIGN_IN, dependencies=[Depends(_is_own)])
def sign_in(
    request: Request, parts: Service, form: Annotated[QueryParams, Depends(read_form)]
) -> Response:
    going_to = own_path(form.get("next", ""))
    secret = form.get("api_key", "").strip()
    try:
        key, reason = _good_key(request, parts, secret)
    except TooManyRequests as error:
        answer = _refused(request, going_to, error.detail, error.status)
        answer.headers.update(error.headers)
        return answer
    if key is None:
        return _refused(request, going_to, reason, 401)
    with parts.database.for_tenant(key.tenant_id).write() as session:
        sessions.end_session(session, token_of(request))
        token = sessions.begin_session(session, key)
        record_call(
            session,
            key_id=key.id,
            action=f"POST {SIGN_IN}",
            target=SIGN_IN,
            request_id=request.state.request_id,
            client=address_of(request),
        )
    response = RedirectResponse(going_to, status_code=303)
    response.set_cookie(
        cookie_name(request),
        token,
        max_age=int(sessions.SESSION_SECONDS),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


@router.post("/sign-out")
async def sign_out(request: Request, viewer: AnyViewer) -> Response:
    def end() -> None:
        with viewer.write() as session:
            sessions.end_session(session, token_of(request))

    await run_in_threadpool(end)
    response = RedirectResponse(SIGN_IN, status_code=303)
    response.delete_cookie(cookie_name(request), httponly=True, samesite="strict")
    return response


def own_path(path: str) -> str:
    """Where to go on; home, where a link would lead away from this server."""
    return path if OWN_PATH.fullmatch(path) and not path.startswith(SIGN_IN) else HOME


def _good_key(request: Request, parts: Parts, secret: str) -> tuple[KnownKey | None, str]:
    """The key, or None and why it does not open the pages.

    Raises: TooManyRequests when too many keys of this address were wrong.
    """
    if not secret:
        return None, "Enter an API key."
    with parts.database.read() as session:
        key = auth.look_up(session, secret)
    if key is None or key.refused is not None:
        parts.failed_sign_ins.take(address_of(request))
        why = key.refused if key is not None and key.refused else "this API key is unknown"
        return None, f"{why[:1].upper()}{why[1:]}."
    if not key.scopes & FOR_PAGES:
        return None, "This API key is for a measuring agent, and opens no pages."
    return key, ""


def _refused(request: Request, going_to: str, reason: str, status: int) -> Response:
    return render(
        request,
        None,
        "sign_in.html",
        status_code=status,
        going_to=going_to,
        has_ended=False,
        reason=reason,
    )
