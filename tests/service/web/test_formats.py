from __future__ import annotations

import math
import time

import pytest

from service.web import formats


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0 ms"),
        (0.81234, "0.812 ms"),
        (12.345, "12.3 ms"),
        (1240.4, "1,240 ms"),
        (math.nan, "–"),
    ],
)
def test_milliseconds_have_three_digits(value: float | None, shown: str) -> None:
    assert formats.as_ms(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0 B"),
        (812, "812 B"),
        (4_100_000, "4.10 MB"),
        (999_600, "1.00 MB"),
        (7e15, "7,000 TB"),
    ],
)
def test_bytes_have_decimal_units(value: float | None, shown: str) -> None:
    assert formats.as_bytes(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3840, "1 h 04 min"),
        (90_000, "1 d 01 h"),
    ],
)
def test_durations_have_two_units(seconds: float | None, shown: str) -> None:
    assert formats.as_duration(seconds) == shown


def test_shares_are_percent() -> None:
    assert formats.as_percent(0.8734) == "87.3 %"
    assert formats.as_percent(None) == "–"


def test_times_are_told_to_machines_too() -> None:
    assert formats.as_time(0.0) == (
        '<time datetime="1970-01-01T00:00:00Z">1 Jan 1970, 00:00 UTC</time>'
    )
    assert formats.as_moment(45.0) == (
        '<time datetime="1970-01-01T00:00:45Z">1 Jan, 00:00:45</time>'
    )
    assert ">2 h ago<" in formats.as_ago(time.time() - 7200)
    assert ">just now<" in formats.as_ago(time.time() + 5)
