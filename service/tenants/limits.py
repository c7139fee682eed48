"""How often somebody may call: token buckets in the memory of each API process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.problems import TooManyRequests

MAX_BUCKETS = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimiter:
    """For each name a bucket of `burst` tokens, which fills by `per_second`.

    Args:
        per_second: 0 limits nothing.
    """

    def __init__(
        self, per_second: float, burst: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def take(self, name: str) -> None:
        """Take a token out of the bucket.

        Raises: TooManyRequests when it is empty.
        """
        if self._per_second == 0:
            return
        with self._lock:
            bucket = self._filled(name)
            if bucket.tokens >= 1.0:
                bucket.tokens -= 1.0
                return
            missing = 1.0 - bucket.tokens
        raise TooManyRequests(math.ceil(missing / self._per_second))

    def _filled(self, name: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._forget_full(now)
            bucket = self._buckets[name] = _Bucket(float(self._burst), now)
        bucket.tokens = self._tokens(bucket, now)
        bucket.filled_at = now
        return bucket

    def _tokens(self, bucket: _Bucket, now: float) -> float:
        grown = bucket.tokens + (now - bucket.filled_at) * self._per_second
        return min(float(self._burst), grown)

    def _forget_full(self, now: float) -> None:
        """A full bucket says no more than none; were all of them in use, the oldest goes."""
        full = [n for n, b in self._buckets.items() if self._tokens(b, now) >= self._burst]
        for name in full or [next(iter(self._buckets))]:
            del self._buckets[name]
