"""Which function runs a kind of step. Imported at first use: the Celery parent never loads torch,
and a child loads only what its steps need."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

from service.steps.step_types import StepResult
from workers.context import JobContext

Handler = Callable[[JobContext], StepResult]

HANDLER_PATHS: Mapping[str, str] = {
    kind: f"workers.steps.{kind}:run"
    for kind in (
        "prepare",
        "onboard",
        "onboarding",
        "teacher",
        "reorder",
        "supernet",
        "search",
        "evaluate",
        "baseline",
        "shortlist",
        "distill",
        "compress",
        "package",
        "verify",
        "export",
        "robustness",
        "report",
        "conclude",
    )
}


def load_handler(kind: str, overrides: Mapping[str, str]) -> Handler:
    """Raises: LookupError when no handler is known by that kind."""
    path = overrides.get(kind) or HANDLER_PATHS.get(kind)
    if path is None:
        raise LookupError(f"no handler runs steps of kind {kind!r}")
    module, _, function = path.partition(":")
    handler: Handler = getattr(importlib.import_module(module), function)
    return handler
