"""Log lines that name the request, job and step they belong to, as text or as JSON.

`SNUGNET_LOG_FORMAT=json` writes an object a line: time, level, logger, message, then what
`log_context` holds at that moment, the ids of the trace where there is one, and an error's
traceback. `SNUGNET_LOG_LEVEL` says from what level on.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from search.errors import InvalidInput
from service.secret_values import MASK
from service.telemetry import tracing

FORMATS = ("text", "json")
FORMAT_VARIABLE = "SNUGNET_LOG_FORMAT"
LEVELS = ("debug", "info", "warning", "error")
LEVEL_VARIABLE = "SNUGNET_LOG_LEVEL"
OWN_LOGGERS = ("service", "workers", "predictors", "search")
SHORTEST_SECRET = 4  # a shorter one would be found in innocent words

_context: ContextVar[Mapping[str, Any]] = ContextVar("log_context", default=MappingProxyType({}))


@contextmanager
def log_context(**fields: Any) -> Iterator[None]:
    """Every line within the block carries these fields, beside those of the blocks around it."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def configure(
    *, secrets: Sequence[str] = (), log_format: str | None = None, log_level: str | None = None
) -> None:
    """Have every logger of this process write to standard error.

    Args:
        secrets: masked wherever they would stand in a line.
        log_format: of `FORMATS`; by default as the environment says, else text.
        log_level: of `LEVELS`; by default as the environment says, else info. The libraries'
            debug lines, which nobody checked for secrets, are never written.

    Raises: InvalidInput when there is no such format or level.
    """
    log_format = log_format or os.environ.get(FORMAT_VARIABLE) or "text"
    if log_format not in FORMATS:
        raise InvalidInput(FORMAT_VARIABLE, f"must be text or json, got {log_format!r}")
    log_level = log_level or os.environ.get(LEVEL_VARIABLE) or "info"
    if log_level not in LEVELS:
        message = f"must be debug, info, warning or error, got {log_level!r}"
        raise InvalidInput(LEVEL_VARIABLE, message)
    level = logging.getLevelNamesMapping()[log_level.upper()]
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter if log_format == "json" else TextFormatter
    handler.setFormatter(formatter(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)
    for name in ("httpx", "alembic"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class _Masking(logging.Formatter):
    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._secrets = tuple(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)

    def masked(self, line: str) -> str:
        for secret in self._secrets:
            line = line.replace(secret, MASK)
        return line


class TextFormatter(_Masking):
    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in _fields_of(record).items())
        return super().formatMessage(record) + (f" [{fields}]" if fields else "")

    def format(self, record: logging.LogRecord) -> str:
        return self.masked(super().format(record))


class JsonFormatter(_Masking):
    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields_of(record),
            **tracing.current_ids(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return self.masked(json.dumps(line, default=str, ensure_ascii=False))


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Of the context, and of the call itself: `extra={"fields": {...}}`."""
    return {**_context.get(), **getattr(record, "fields", {})}
