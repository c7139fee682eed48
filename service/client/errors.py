"""What a call of the SDK can raise, beside `InvalidInput` for input that is never sent."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
from pydantic import ValidationError

from search.errors import SnugnetError
from service.schemas import Problem


class ApiError(SnugnetError):
    """The server answered with a problem."""

    code = "api_error"

    def __init__(self, problem: Problem) -> None:
        reasons = "; ".join(f"{error.field}: {error.reason}" for error in problem.errors)
        super().__init__(reasons or problem.detail)
        self.problem = problem


class NotAllowed(ApiError):
    """The API key is missing, unknown or revoked, or lacks a scope (401, 403)."""

    code = "not_allowed"


class NotFound(ApiError):
    code = "not_found"


class Conflict(ApiError):
    """The state of the thing does not allow this now (409): for example a lease that was lost."""

    code = "conflict"


class HasChanged(Conflict):
    """It is not, or no longer, of the version that was named (412)."""

    code = "has_changed"


class Rejected(ApiError):
    """The input is wrong (400, 413, 422); `problem.errors` name the fields."""

    code = "rejected"


class Unreachable(SnugnetError):
    """No answer from the server after all tries; or it failed, and `problem` says what it told."""

    code = "unreachable"

    def __init__(self, reason: str, problem: Problem | None = None) -> None:
        super().__init__(reason)
        self.problem = problem


class Corrupted(SnugnetError):
    """What arrived is not what the server announced."""

    code = "corrupted"


class AlreadyDownloading(SnugnetError):
    """Another process is writing the same file."""

    code = "already_downloading"


ERRORS: Mapping[int, type[ApiError]] = {
    400: Rejected,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    412: HasChanged,
    413: Rejected,
    422: Rejected,
}


def error_of(response: httpx.Response) -> SnugnetError:
    problem = problem_of(response)
    if problem is None:
        return Unreachable(f"{response.url} answered with status {response.status_code}")
    if response.status_code >= 500:
        reason = f"the server failed: {problem.detail} ({problem.request_id})"
        return Unreachable(reason, problem)
    return ERRORS.get(response.status_code, ApiError)(problem)


def problem_of(response: httpx.Response) -> Problem | None:
    """None where something else than the service has answered."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return None
