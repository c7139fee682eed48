"""Server-sent events as they come over the wire: each event once, across reconnections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import httpx
from pydantic import ValidationError

from service.client.calls import LONG_POLL_SECONDS
from service.client.errors import Unreachable
from service.schemas import Event

SILENCE_SECONDS = 45.0
"""The server says something every 15 s; a connection that is quiet for this long is dead."""
PATIENCE_SECONDS = 60.0


class Feed:
    """The events of one job after `after`, until it has ended.

    Args:
        path: of the stream at the server.
        patience_s: how long the server may be away (a restart) before `Unreachable`.
    """

    def __init__(self, path: str, *, after: int = 0, patience_s: float = PATIENCE_SECONDS) -> None:
        self.path = path
        self.patience_s = patience_s
        self.has_ended = False
        self._after = after
        self._buffer = b""
        self._fields: dict[str, list[str]] = {}

    @property
    def headers(self) -> Mapping[str, str]:
        """Of a connection that goes on where the one before broke off."""
        return {"Accept": "text/event-stream", "Last-Event-ID": str(self._after)}

    def begin(self, response: httpx.Response) -> bool:
        """Make ready for the events of a new connection; False when it has none."""
        self._buffer, self._fields = b"", {}
        if response.status_code != httpx.codes.OK:
            return False
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            raise Unreachable(f"{response.url} did not answer as a Snugnet server does")
        return True

    def receive(self, content: bytes) -> Iterator[Event]:
        """The events that are whole with this content."""
        # Lines end as the protocol has it: httpx's own also end at characters that messages hold.
        *lines, self._buffer = (self._buffer + content).split(b"\n")
        for line in lines:
            event = self._read_line(line.removesuffix(b"\r").decode())
            if event is not None and event.seq > self._after:
                self._after = event.seq
                yield event

    def _read_line(self, line: str) -> Event | None:
        if line:
            name, _, value = line.partition(":")
            self._fields.setdefault(name, []).append(value.removeprefix(" "))
            return None
        fields, self._fields = self._fields, {}
        kind = fields.get("event", [""])[-1]
        if kind == "end":
            self.has_ended = True
        if kind or "data" not in fields:
            return None
        try:
            return Event.model_validate_json("\n".join(fields["data"]))
        except ValidationError:
            raise Unreachable(f"{self.path} did not answer as a Snugnet server does") from None


# How long a page of events may be waited for, beside the wait that was asked for.
PAGE_TIMEOUT_SECONDS = 15.0


def page_params(after: int, limit: int, wait_s: float) -> dict[str, float]:
    return {"after": after, "limit": limit, "wait_s": max(0.0, min(wait_s, LONG_POLL_SECONDS))}
