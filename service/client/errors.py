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
    """The API key is missing, unknown or revoked (401, 403)."""

    code = "not_allowed"


class NotFound(ApiError):
    code = "not_found"


class Conflict(ApiError):
    """The state of the thing does not allow this now (409): for example a lease that was lost."""

    code = "conflict"


class Rejected(ApiError):
    """The input is wrong (400, 413, 422); `problem.errors` name the fields."""

    code = "rejected"


class Unreachable(SnugnetError):
    """No answer from the server, after all tries."""

    code = "unreachable"


class Corrupted(SnugnetError):
    """What arrived is not what the server announced."""

    code = "corrupted"


ERRORS: Mapping[int, type[ApiError]] = {
    400: Rejected,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    413: Rejected,
    422: Rejected,
}


def error_of(response: httpx.Response) -> SnugnetError:
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return Unreachable(f"{response.url} answered with status {response.status_code}")
    if response.status_code >= 500:
        return Unreachable(f"the server failed: {problem.detail} ({problem.request_id})")
    return ERRORS.get(response.status_code, ApiError)(problem)
