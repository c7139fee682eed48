"""One call of the API: what is sent, and how its answer is read. Nothing is sent here, so that a
client that blocks and one that awaits share everything but the sending."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from search.errors import InvalidInput
from service.client.errors import Unreachable

T = TypeVar("T")
Answer = TypeVar("Answer", covariant=True)
U = TypeVar("U")
Item = TypeVar("Item", covariant=True)
Answered = TypeVar("Answered", bound=BaseModel)

READ_BYTES = 1 << 20
LONG_POLL_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FileBody:
    """A request's body that is read from the disk while it is sent, anew for each try."""

    path: Path

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while chunk := file.read(READ_BYTES):
                yield chunk


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(Generic[Answer]):
    """One logical call, however often it has to be sent: a POST keeps its idempotency key.

    Attributes:
        parse: of an answer that is no error.
        timeout_s: for the answer, where it is not the client's own.
        patience_s: how long the server may be away, beyond the client's tries.
        max_tries: where it is not the client's own number.
        is_done_when_gone: a 404 to a later try is what the try before it has done.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], Answer]
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FileBody = b""
    timeout_s: float | None = None
    patience_s: float = 0.0
    max_tries: int | None = None
    is_done_when_gone: bool = False

    def then(self, change: Callable[[Answer], U]) -> Call[U]:
        """The same call with a further step for its answer."""
        parse = self.parse
        return replace(self, parse=lambda response: change(parse(response)))  # type: ignore[arg-type, return-value]


class Page(Protocol[Item]):
    """One page of a list."""

    @property
    def items(self) -> Sequence[Item]: ...

    @property
    def next_cursor(self) -> str | int | None: ...


def page_after(call: Call[Page[Item]], page: Page[Item]) -> Call[Page[Item]] | None:
    """The call for the page that follows; None after the last one."""
    if page.next_cursor is None:
        return None
    return replace(call, params={**call.params, "cursor": page.next_cursor})


def path_of(*parts: str) -> str:
    """Of the resource, whatever characters an id that somebody typed may have."""
    return "/".join(("/v1", *(quote(part, safe="") for part in parts)))


def get(
    answer: type[Answered],
    path: str,
    params: Mapping[str, Any] | None = None,
    **options: Any,
) -> Call[Answered]:
    return Call(
        method="GET", path=path, parse=reads(answer), params=_present(params or {}), **options
    )


def post(
    parse: Callable[[httpx.Response], T],
    path: str,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    is_harmless_twice: bool = False,
    **options: Any,
) -> Call[T]:
    """With a key of its own, by which the server knows a further try of it; without one where a
    further try does no harm, since a server that dies with the first one in hand keeps the key
    for half a minute."""
    key = {} if is_harmless_twice else {"Idempotency-Key": str(uuid.uuid4())}
    return _with_body("POST", parse, path, body, {**(headers or {}), **key}, **options)


def patch(
    answer: type[Answered],
    path: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> Call[Answered]:
    return _with_body("PATCH", reads(answer), path, body, headers or {})


def delete(path: str, headers: Mapping[str, str] | None = None, **options: Any) -> Call[None]:
    return Call(
        method="DELETE",
        path=path,
        parse=nothing,
        headers=headers or {},
        is_done_when_gone=True,
        **options,
    )


def _with_body(
    method: str,
    parse: Callable[[httpx.Response], T],
    path: str,
    body: Mapping[str, Any] | None,
    headers: Mapping[str, str],
    **options: Any,
) -> Call[T]:
    """Raises: InvalidInput for what has no JSON."""
    content = b""
    if body is not None:
        try:
            content = json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise InvalidInput("request", f"has no JSON: {error}") from None
        headers = {"Content-Type": "application/json", **headers}
    return Call(method=method, path=path, parse=parse, body=content, headers=headers, **options)


def reads(answer: type[Answered]) -> Callable[[httpx.Response], Answered]:
    def parse(response: httpx.Response) -> Answered:
        try:
            return answer.model_validate_json(response.content)
        except ValidationError:
            raise Unreachable(f"{response.url} did not answer as a Snugnet server does") from None

    return parse


def nothing(_response: httpx.Response) -> None:
    return None


def _present(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}
