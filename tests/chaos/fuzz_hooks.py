"""What Schemathesis must not do to the small world, loaded by its own process (`hooks`)."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis

LONGEST_WAIT_SECONDS = 0.02

_world = json.loads(os.environ["SNUGNET_FUZZ_WORLD"])


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    """Nothing waits for what will not happen, and the run's own key stays good."""
    path = case.path_parameters or {}
    if case.path.endswith("/events/stream") and str(path.get("job_id", "")).startswith("job_"):
        path["job_id"] = _world["finished_job"]  # any other may go on, and its stream with it
    if path.get("key_id") == _world["own_key"]:
        path["key_id"] = "key_that_never_was"
    query = case.query or {}
    wait = query.get("wait_s")
    if isinstance(wait, int | float) and 20 >= wait > LONGEST_WAIT_SECONDS:
        query["wait_s"] = LONGEST_WAIT_SECONDS
