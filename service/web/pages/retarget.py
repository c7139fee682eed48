"""Other targets for the supernet of a search that has ended: what the form shows, and reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.datastructures import QueryParams

from search.errors import InvalidInput
from service.devices.devices import list_devices
from service.jobs import jobs
from service.jobs.job_spec import JobSpec
from service.problems import NotFound
from service.validation import field_errors

MAX_TARGETS = 8
FIELDS = ("device", "runtime", "statistic", "budget", "unit", "seq_len", "threads")
UNITS = {"budget_ms": "ms", "budget_ratio": "× unsearched"}


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedTarget:
    """One row of the form, as it was typed."""

    given: Mapping[str, str]
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The form. `spec` is that of the job whose supernet is to be searched."""

    job_id: str
    name: str
    spec: Mapping[str, Any]
    targets: tuple[WantedTarget, ...]
    devices: tuple[str, ...]
    errors: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=lambda: UNITS)

    @property
    def has_errors(self) -> bool:
        return bool(self.errors) or any(target.errors for target in self.targets)

    def with_error(self, error: InvalidInput) -> Self:
        """Beside the row that it is about, or above them all."""
        for place in range(len(self.targets)):
            prefix = f"targets[{place}]."
            if error.field.startswith(prefix):
                told = f"{error.field.removeprefix(prefix)}: {error.reason}"
                row = self.targets[place]
                changed = replace(row, errors=(*row.errors, told))
                rows = (*self.targets[:place], changed, *self.targets[place + 1 :])
                return replace(self, targets=rows)
        return replace(self, errors=(*self.errors, f"{error.field}: {error.reason}"))


def wanted_of(session: Session, job_id: str) -> Wanted:
    """The form as it is first shown: the job's own targets.

    Raises: NotFound.
    """
    row = jobs.get_job(session, job_id, jobs.SEARCH)
    if row is None:
        raise NotFound("search job", job_id)
    devices = list_devices(session, with_retired=False)
    return Wanted(
        job_id=job_id,
        name=row.name,
        spec=row.spec,
        targets=tuple(WantedTarget(given=_shown(target)) for target in row.spec["targets"]),
        devices=tuple(device.name for device in devices),
    )


def _shown(target: Mapping[str, Any]) -> dict[str, str]:
    workload = target["workload"]
    unit = "budget_ms" if target["budget_ms"] is not None else "budget_ratio"
    return {
        "device": target["device"],
        "runtime": workload["runtime"],
        "statistic": target["statistic"],
        "budget": f"{target[unit]:g}",
        "unit": unit,
        "seq_len": "" if workload["seq_len"] is None else str(workload["seq_len"]),
        "threads": str(workload["threads"]),
    }


def read_wanted(session: Session, job_id: str, form: QueryParams) -> Wanted:
    """What was typed; rows without a budget are none.

    Raises: NotFound.
    """
    wanted = wanted_of(session, job_id)
    columns = [form.getlist(name) for name in FIELDS]
    rows = [dict(zip(FIELDS, values, strict=False)) for values in zip(*columns, strict=False)]
    kept = [row for row in rows if row["budget"].strip()][:MAX_TARGETS]
    errors = () if kept else ("give at least one budget",)
    targets = tuple(WantedTarget(given=row) for row in kept)
    return replace(
        wanted, targets=targets or wanted.targets, errors=errors, name=form.get("name", "").strip()
    )


def spec_of(wanted: Wanted) -> JobSpec | Wanted:
    """The job that the form asks for, or the form with what is wrong about it."""
    spec = {
        **wanted.spec,
        "name": wanted.name,
        "supernet_of": wanted.job_id,
        "targets": [
            _target(target.given, before)
            for target, before in zip(wanted.targets, _before(wanted), strict=True)
        ],
    }
    try:
        return JobSpec.model_validate(spec)
    except ValidationError as error:
        told = wanted
        for wrong in field_errors(error.errors(), JobSpec):
            told = told.with_error(wrong)
        return told


def _before(wanted: Wanted) -> list[Mapping[str, Any]]:
    """The job's own target in the place of each row: what the form does not show stays."""
    own = wanted.spec["targets"]
    return [own[min(place, len(own) - 1)] for place in range(len(wanted.targets))]


def _target(given: Mapping[str, str], before: Mapping[str, Any]) -> dict[str, Any]:
    workload = {
        **before["workload"],
        "runtime": given["runtime"].strip(),
        "seq_len": given["seq_len"].strip() or None,
        "threads": given["threads"].strip(),
    }
    budgets: dict[str, Any] = dict.fromkeys(UNITS)
    unit = given["unit"] if given["unit"] in UNITS else "budget_ms"
    budgets[unit] = given["budget"].strip()
    return {
        **before,
        **budgets,
        "device": given["device"],
        "statistic": given["statistic"],
        "workload": workload,
    }
