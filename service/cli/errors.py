"""Exit codes, and the one line on standard error that goes with them."""

from __future__ import annotations

import sys

from search.errors import InvalidInput, SnugnetError
from service.client import ApiError, Conflict, NotAllowed, NotFound, Rejected, Unreachable

OK = 0
JOB_FAILED = 1
USAGE = 2
NOT_ALLOWED = 3
NOT_FOUND = 4
NETWORK = 5
INTERRUPTED = 130


def exit_code(error: SnugnetError) -> int:
    if isinstance(error, InvalidInput | Rejected):
        return USAGE
    if isinstance(error, NotAllowed):
        return NOT_ALLOWED
    if isinstance(error, NotFound | Conflict):
        return NOT_FOUND
    if isinstance(error, Unreachable):
        return NETWORK
    return JOB_FAILED


def report(error: SnugnetError) -> None:
    """In one line, without a traceback; with the request's id where the server has more to say."""
    text = " ".join(str(error).split())
    if isinstance(error, NotAllowed) and error.problem.status == 401:
        text += " (give --api-key or SNUGNET_API_KEY)"
    elif isinstance(error, ApiError) and error.problem.status >= 500:
        text += f" (request {error.problem.request_id})"
    sys.stderr.write(f"error: {text}\n")
