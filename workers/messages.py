"""Messages as the broker has them: those that are none, or that a full broker cannot keep for us,
are dropped, and none is held for ever."""

from __future__ import annotations

import json
import logging
from queue import Empty
from typing import Any

from celery.worker.request import Request
from kombu.transport import redis, virtual
from redis.exceptions import OutOfMemoryError

logger = logging.getLogger(__name__)


class NoMessage(ValueError):
    """What was in the queue has not the form of a message."""


class _Message(virtual.Message):
    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        try:
            super().__init__(payload, channel=channel, **options)  # type: ignore[no-untyped-call]
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise NoMessage(f"{type(error).__name__}: {error}") from error


class TolerantQoS(redis.QoS):
    """Looks for messages of workers that died, which takes a lock, and a lock takes memory."""

    def restore_visible(self, *args: Any, **options: Any) -> None:
        try:
            super().restore_visible(*args, **options)  # type: ignore[no-untyped-call]
        except OutOfMemoryError as error:
            logger.warning("the broker is full; what the dead had in hand waits: %s", error)


class TolerantChannel(redis.Channel):
    """Lives on after something that is no message, and beside a broker that is full; kombu's own
    ends the worker with either."""

    Message = _Message
    QoS = TolerantQoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (NoMessage, json.JSONDecodeError, UnicodeDecodeError) as error:
            logger.error("what was in the queue is no message, and was dropped: %s", error)
            raise Empty from error
        except OutOfMemoryError as error:
            # It is out of the queue, and could not be noted as being in hand.
            logger.warning("a message was dropped, its step will be sent anew: %s", error)
            raise Empty from error


class StepRequest(Request):  # type: ignore[misc]
    """A message in hand, whose acknowledgement may get lost.

    Where the broker went away while a step ran, Celery logs that it could not acknowledge the
    message, and keeps counting it as one in hand. A worker holds as many as it has slots: it would
    never fetch another one. Here the message is let go of whatever becomes of its
    acknowledgement; the broker may deliver it again, and finds the step done.
    """

    def acknowledge(self) -> None:
        try:
            super().acknowledge()
        except Exception as error:
            logger.warning("the broker did not take an acknowledgement: %s", error)
            self.acknowledged = True
        if not self.message.acknowledged:
            qos = self.message.channel.qos
            virtual.QoS.ack(qos, self.message.delivery_tag)  # type: ignore[no-untyped-call]


def install() -> None:
    """For every connection of this process."""
    redis.Transport.Channel = TolerantChannel
