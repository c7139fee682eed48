"""When a request is sent again, and how long before."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from service.client.errors import Corrupted, problem_of

MAX_PAUSE_SECONDS = 10.0
PATIENT_PAUSE_SECONDS = 2.0  # a server that is being restarted is found again soon
MAX_RETRY_AFTER_SECONDS = 60.0
IN_FLIGHT = "idempotency_in_flight"
IN_FLIGHT_PATIENCE_SECONDS = 60.0
"""A server that died while it was at a request holds its key for half a minute."""

Outcome = httpx.Response | httpx.TransportError | Corrupted


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Pauses grow from `backoff_s`, and are jittered so that clients do not come back as one."""

    max_tries: int = 5
    backoff_s: float = 0.5


class Tries:
    """Those of one call.

    Every call may be sent again: what is not idempotent by its method has a key by which the
    server knows it.

    Args:
        patience_s: how long the server may be away, whatever the number of tries.
    """

    def __init__(
        self, policy: RetryPolicy, *, max_tries: int | None = None, patience_s: float = 0.0
    ) -> None:
        self._policy = policy
        self._max_tries = max_tries or policy.max_tries
        self._patience_s = patience_s
        self.note_progress()

    def note_progress(self) -> None:
        """Something arrived: what failed before does not count any more."""
        self.num_tried = 0
        self._away_since: float | None = None

    def pause_after(self, outcome: Outcome) -> float | None:
        """Seconds until the next try; None when this outcome is to be taken as it is."""
        self.num_tried += 1
        if not _may_pass(outcome):
            return None
        now = time.monotonic()
        self._away_since = self._away_since or now
        patience_s = IN_FLIGHT_PATIENCE_SECONDS if _is_in_flight(outcome) else self._patience_s
        is_patient = now - self._away_since < patience_s
        if self.num_tried >= self._max_tries and not is_patient:
            return None
        asked_s = _retry_after(outcome)
        return self._backoff_s() if asked_s is None else asked_s * random.uniform(1.0, 1.1)

    def _backoff_s(self) -> float:
        longest = PATIENT_PAUSE_SECONDS if self._patience_s else MAX_PAUSE_SECONDS
        doubled = self._policy.backoff_s * 2.0 ** min(self.num_tried - 1, 10)
        return min(longest, doubled) * random.uniform(0.5, 1.0)


def _may_pass(outcome: Outcome) -> bool:
    """Whether another try may end otherwise."""
    if not isinstance(outcome, httpx.Response):
        return True
    is_busy = outcome.status_code in (408, 429) or outcome.status_code >= 500
    return is_busy or _is_in_flight(outcome)


def _is_in_flight(outcome: Outcome) -> bool:
    """Whether the same call, sent before, is being carried out."""
    if not isinstance(outcome, httpx.Response) or outcome.status_code != httpx.codes.CONFLICT:
        return False
    problem = problem_of(outcome)
    return problem is not None and problem.code == IN_FLIGHT


def _retry_after(outcome: Outcome) -> float | None:
    """As the server asked for it, in seconds or as a date, within reason."""
    if not isinstance(outcome, httpx.Response):
        return None
    text = outcome.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return min(MAX_RETRY_AFTER_SECONDS, float(text))
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    left_s = (until - datetime.now(UTC)).total_seconds()
    return min(MAX_RETRY_AFTER_SECONDS, max(0.0, left_s))
