"""A bucket of tokens for each caller."""

from __future__ import annotations

import pytest

from service.problems import TooManyRequests
from service.tenants import limits
from service.tenants.limits import RateLimiter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_bucket_is_emptied_and_fills_again(clock: Clock) -> None:
    limiter = RateLimiter(0.5, 2, clock=clock)
    limiter.take("a")
    limiter.take("a")
    with pytest.raises(TooManyRequests) as refused:
        limiter.take("a")
    assert refused.value.headers == {"Retry-After": "2"}
    limiter.take("b")  # everybody has their own
    clock.now = 2.0
    limiter.take("a")
    clock.now = 1000.0
    limiter.take("a")
    limiter.take("a")
    with pytest.raises(TooManyRequests):
        limiter.take("a")


def test_without_a_rate_nothing_is_limited(clock: Clock) -> None:
    limiter = RateLimiter(0.0, 0, clock=clock)
    for _ in range(1000):
        limiter.take("a")


def test_the_number_of_buckets_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BUCKETS", 3)
    limiter = RateLimiter(1.0, 2, clock=clock)
    for name in "abcdef":
        limiter.take(name)
    assert len(limiter._buckets) == 3
    limiter.take("f")
    with pytest.raises(TooManyRequests):
        limiter.take("f")
