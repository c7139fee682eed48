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

MEANINGS = {
    OK: "all went well",
    JOB_FAILED: "the job failed or was cancelled, or something on this machine did",
    USAGE: "wrong options or input",
    NOT_ALLOWED: "no API key, or one that does not allow this",
    NOT_FOUND: "there is no such thing, or its state does not allow this",
    NETWORK: "no answer from the server, or it is too busy",
    INTERRUPTED: "interrupted by Ctrl-C; a job that was followed goes on",
}


def exit_code(error: SnugnetError) -> int:
    if isinstance(error, InvalidInput | Rejected):
        return USAGE
    if isinstance(error, NotAllowed):
        return NOT_ALLOWED
    if isinstance(error, NotFound | Conflict):
        return NOT_FOUND
    is_busy = isinstance(error, ApiError) and error.problem.status in (408, 429)
    if isinstance(error, Unreachable) or is_busy:
        return NETWORK
    return JOB_FAILED


def report(error: SnugnetError | OSError) -> None:
    """In one line, without a traceback."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, NotAllowed) and error.problem.status == 401:
        text += " (give --api-key or SNUGNET_API_KEY)"
    sys.stderr.write(f"error: {text}\n")
