"""Numbers and times as people read them, the same on every page."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

from markupsafe import Markup

NONE = "–"
_STEPS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))
_UNITS = ("B", "kB", "MB", "GB", "TB")


def as_time(at: float | None) -> Markup | str:
    """A `<time>` element, in UTC; a script tells the viewer's own zone."""
    return NONE if at is None else _time_element(at, "{0.day} {0:%b %Y, %H:%M} UTC")


def as_moment(at: float | None) -> Markup | str:
    """To the second, for what follows fast: "26 Nov, 12:04:31", in UTC."""
    return NONE if at is None else _time_element(at, "{0.day} {0:%b, %H:%M:%S}")


def _time_element(at: float, form: str) -> Markup:
    moment = datetime.fromtimestamp(at, UTC)
    machine = moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(machine, form.format(moment))


def as_ago(at: float | None) -> Markup | str:
    """ "3 min ago", with the exact time as its title."""
    if at is None:
        return NONE
    moment = datetime.fromtimestamp(at, UTC)
    machine = moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    past_s = max(0.0, time.time() - at)
    shown = "just now" if past_s < 60 else f"{_largest(past_s)} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        machine, f"{moment:%Y-%m-%d %H:%M:%S} UTC", shown
    )


def as_duration(seconds: float | None) -> str:
    """ "42 s", "3 min 20 s", "1 h 04 min"."""
    if seconds is None:
        return NONE
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def as_ms(value: float | None) -> str:
    """Three digits that count: "0.812 ms", "12.3 ms", "1,240 ms"."""
    shown = as_number(value)
    return shown if shown == NONE else f"{shown} ms"


def as_number(value: float | None, digits: int = 3) -> str:
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{places}f}"


def as_bytes(value: float | None) -> str:
    """Decimal units: "812 B", "4.1 MB"."""
    if value is None:
        return NONE
    size, unit = float(value), _UNITS[0]
    for unit in _UNITS:
        if abs(size) < 999.5 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{as_number(size)} {unit}"


def as_percent(share: float | None, places: int = 1) -> str:
    """0.873 -> "87.3 %"."""
    return NONE if share is None or not math.isfinite(share) else f"{100 * share:.{places}f} %"


def as_count(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def as_words(name: str | None) -> str:
    """A name of a program's, for people: "text-classification" -> "text classification"."""
    return NONE if not name else name.replace("_", " ").replace("-", " ")


def _largest(seconds: float) -> str:
    for step, unit in _STEPS:
        if seconds >= step:
            return f"{seconds / step:.0f} {unit}"
    return f"{seconds:.0f} s"


FILTERS = {
    "time": as_time,
    "moment": as_moment,
    "ago": as_ago,
    "duration": as_duration,
    "ms": as_ms,
    "number": as_number,
    "bytes": as_bytes,
    "percent": as_percent,
    "count": as_count,
    "words": as_words,
}
