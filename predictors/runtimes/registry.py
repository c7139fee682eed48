"""Which runtimes this machine has: each is imported when it is asked for, and only then."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from predictors.device import RuntimeInfo
from predictors.runtimes.base import Runtime, RuntimeMissing
from predictors.workload import RUNTIMES
from search.errors import InvalidInput


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundRuntimes:
    """Those that can be measured in, and why the others cannot."""

    available: Mapping[str, RuntimeInfo]
    missing: Mapping[str, str]


def load_runtime(name: str) -> Runtime:
    """Raises: InvalidInput for a name that is none, RuntimeMissing with the reason."""
    if name not in RUNTIMES:
        raise InvalidInput("workload.runtime", f"{name!r} is not one of {RUNTIMES}")
    if importlib.util.find_spec(name) is None:
        raise RuntimeMissing(f"{name} is not installed here ({platform.machine()})")
    try:
        module = importlib.import_module(f"predictors.runtimes.{name}")
    except Exception as error:  # a broken install may fail in any way
        raise RuntimeMissing(f"{name} cannot be imported: {error}") from error
    runtime: Runtime = module.create()
    return runtime


def find_runtimes() -> FoundRuntimes:
    """Loads every runtime that is installed."""
    available: dict[str, RuntimeInfo] = {}
    missing: dict[str, str] = {}
    for name in RUNTIMES:
        try:
            runtime = load_runtime(name)
        except RuntimeMissing as error:
            missing[name] = str(error)
        else:
            available[name] = RuntimeInfo(
                version=runtime.version,
                providers=runtime.providers,
                precisions=runtime.precisions,
            )
    return FoundRuntimes(available=available, missing=missing)
