"""Load on an HTTP server, from a process of its own: `python -m benchmarks.open_loop < plan.json`.

Requests are sent when they were planned, whatever became of those before, and their latency counts
from that time: a server that stalls is not spared the requests it would have got meanwhile. The
client is as light as can be, since it shares the cores with what it measures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

OPEN_SECONDS = 30.0
SETTLE_SECONDS = 0.3
HEAD_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to do for how long.

    Attributes:
        requests: (method, path, body), one after the other, again from the first.
        kind: `open` sends `per_second`; `closed` sends on `num_connections` as fast as answers
            come; `streams` opens one for each of `requests` and notes when events arrive.
        warm_up_s: of `open`, before what counts.
    """

    url: str
    key: str
    requests: list[tuple[str, str, str | None]]
    kind: Literal["open", "closed", "streams"]
    seconds: float
    per_second: float = 0.0
    num_connections: int = 16
    warm_up_s: float = 0.0


@dataclass(kw_only=True, slots=True)
class Loaded:
    """What came of it.

    Attributes:
        late_ms: how much later than planned the requests were sent: the client's own fault.
        arrivals: of `streams`: (path, seq of the event, epoch seconds).
    """

    latencies_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    arrivals: list[tuple[str, int, float]] = field(default_factory=list)

    def count(self, status: int) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1


class Connection:
    """One keep-alive connection, for one request at a time."""

    def __init__(self, plan: Plan) -> None:
        address = urlsplit(plan.url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._common = f"Host: {address.netloc}\r\nAuthorization: Bearer {plan.key}\r\n"
        self.reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: str | None) -> int:
        """The status; the answer is read to its end."""
        headers = await self.begin(method, path, body)
        length = _header(headers, b"content-length")
        if length:
            await self.reader.readexactly(int(length))
        return _status(headers)

    async def begin(self, method: str, path: str, body: str | None) -> bytes:
        """The head of the answer."""
        content = (body or "").encode()
        about = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        head = f"{method} {path} HTTP/1.1\r\n{self._common}{about if body else ''}\r\n"
        message = head.encode() + content
        if self._writer is not None:
            # A server closes what was not used for a while: then it takes a new one.
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                return await self._exchange(self._writer, message)
            await self.close()
        self.reader, self._writer = await asyncio.open_connection(
            self._host, self._port, limit=HEAD_BYTES
        )
        return await self._exchange(self._writer, message)

    async def _exchange(self, writer: asyncio.StreamWriter, message: bytes) -> bytes:
        writer.write(message)
        return await self.reader.readuntil(b"\r\n\r\n")

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()


async def run(plan: Plan) -> Loaded:
    kinds = {"open": _open, "closed": _closed, "streams": _streams}
    return await kinds[plan.kind](plan)


async def _open(plan: Plan) -> Loaded:
    loaded, free = Loaded(), list[Connection]()
    num_warm = round(plan.warm_up_s * plan.per_second)
    start = time.perf_counter() + SETTLE_SECONDS
    tasks = []
    for index in range(num_warm + round(plan.seconds * plan.per_second)):
        planned = start + index / plan.per_second
        await asyncio.sleep(max(0.0, planned - time.perf_counter()))
        counts = index >= num_warm
        tasks.append(asyncio.create_task(_one(plan, index, planned, free, loaded, counts)))
    await asyncio.gather(*tasks)
    loaded.seconds = time.perf_counter() - start - plan.warm_up_s
    await asyncio.gather(*(connection.close() for connection in free))
    return loaded


async def _one(
    plan: Plan,
    index: int,
    planned: float,
    free: list[Connection],
    loaded: Loaded,
    counts: bool,
) -> None:
    connection = free.pop() if free else Connection(plan)
    sent = time.perf_counter()
    status = await connection.ask(*plan.requests[index % len(plan.requests)])
    now = time.perf_counter()
    free.append(connection)
    if counts:
        loaded.latencies_ms.append(1000 * (now - planned))
        loaded.late_ms.append(1000 * (sent - planned))
        loaded.count(status)


async def _closed(plan: Plan) -> Loaded:
    loaded = Loaded()
    start = time.perf_counter()

    async def work(index: int) -> None:
        connection = Connection(plan)
        while (sent := time.perf_counter()) < start + plan.seconds:
            status = await connection.ask(*plan.requests[index % len(plan.requests)])
            loaded.latencies_ms.append(1000 * (time.perf_counter() - sent))
            loaded.count(status)
            index += plan.num_connections
        await connection.close()

    await asyncio.gather(*(work(index) for index in range(plan.num_connections)))
    loaded.seconds = time.perf_counter() - start
    return loaded


async def _streams(plan: Plan) -> Loaded:
    """Says `open` on standard output once all are, so that events can be written."""
    loaded = Loaded()
    connections = [Connection(plan) for _ in plan.requests]
    for connection, request in zip(connections, plan.requests, strict=True):
        status = _status(await asyncio.wait_for(connection.begin(*request), OPEN_SECONDS))
        loaded.count(status)
    sys.stdout.write("open\n")
    sys.stdout.flush()

    async def listen(connection: Connection, path: str) -> None:
        while line := await connection.reader.readline():
            if line.startswith(b"data: {"):
                arrived = time.time()
                seq = json.loads(line[6:]).get("seq")
                loaded.arrivals.append((path, seq, arrived))

    tasks = [
        asyncio.create_task(listen(connection, path))
        for connection, (_, path, _) in zip(connections, plan.requests, strict=True)
    ]
    await asyncio.sleep(plan.seconds)
    for task, connection in zip(tasks, connections, strict=True):
        task.cancel()
        await connection.close()
    loaded.seconds = plan.seconds
    return loaded


def _status(head: bytes) -> int:
    return int(head[9:12])


def _header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""


def main() -> None:
    given: dict[str, Any] = json.load(sys.stdin)
    given["requests"] = [tuple(request) for request in given["requests"]]
    json.dump(asdict(asyncio.run(run(Plan(**given)))), sys.stdout)


if __name__ == "__main__":
    main()
