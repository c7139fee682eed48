"""How the functions that describe calls become methods: of a client that blocks, and of one that
awaits, each with the function's own arguments, types and help."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from service.client.awaiting import AwaitingConnection
from service.client.blocking import BlockingConnection
from service.client.calls import Call, Page
from service.client.events import Feed
from service.client.plans import Plan
from service.schemas import Event

P = ParamSpec("P")
T = TypeVar("T")


class Sent(Generic[P, T]):
    """A call that is sent, or a plan that is carried out; its answer."""

    def __init__(self, describe: Callable[P, Call[T] | Plan[T]]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: BlockingConnection, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, client: AwaitingConnection, owner: type
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self

        @functools.wraps(self._describe)
        def method(*args: P.args, **options: P.kwargs) -> Any:
            described = self._describe(*args, **options)
            is_call = isinstance(described, Call)
            return client.send(described) if is_call else client.run(described)

        return method


class Listed(Generic[P, T]):
    """Everything of a list, page after page as it is needed."""

    def __init__(self, describe: Callable[P, Call[Page[T]]]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: BlockingConnection, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(
        self, client: AwaitingConnection, owner: type
    ) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self

        @functools.wraps(self._describe)
        def method(*args: P.args, **options: P.kwargs) -> Any:
            return client.iterate(self._describe(*args, **options))

        return method


class Followed(Generic[P]):
    """The events of something, as they happen, until it has ended."""

    def __init__(self, describe: Callable[P, Feed]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: BlockingConnection, owner: type) -> Callable[P, Iterator[Event]]: ...
    @overload
    def __get__(
        self, client: AwaitingConnection, owner: type
    ) -> Callable[P, AsyncIterator[Event]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self

        @functools.wraps(self._describe)
        def method(*args: P.args, **options: P.kwargs) -> Any:
            return client.follow(self._describe(*args, **options))

        return method
