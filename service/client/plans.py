"""What takes more than one call, written once: a plan yields what is to be done and is handed what
came of it, by a client that blocks or by one that awaits.

    def upload() -> Plan[Upload]:
        opened = yield from ask(declare(...))
        yield from ask(send_file(opened.id, ...))
        return (yield from ask(finalize(opened.id)))
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

from service.client.calls import Call
from service.client.downloads import Download

T = TypeVar("T")

Step: TypeAlias = Call[Any] | Download | Callable[[], Any]
Plan: TypeAlias = Generator[Step, Any, T]


def ask(call: Call[T]) -> Plan[T]:
    answer: T = yield call
    return answer


def fetch(download: Download) -> Plan[None]:
    yield download


def work(function: Callable[[], T]) -> Plan[T]:
    """Something that keeps this machine busy, such as hashing a file: an event loop must not wait
    for it."""
    found: T = yield function
    return found
