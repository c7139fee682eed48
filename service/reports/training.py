"""How a supernet converged, as a chart."""

from __future__ import annotations

from typing import Any

from service.reports.charts import Axis, Chart, Guide, Role, Series, rounded
from service.reports.record import JobRecord
from service.reports.words import quality_axis

NOT_SUBNETS = ("step", "teacher")
ROLES: dict[str, Role] = {
    "largest": "largest",
    "middle": "middle",
    "lower": "fourth",
    "smallest": "smallest",
}


def convergence_chart(record: JobRecord) -> Chart | None:
    points, teacher = _told(record)
    if not points:
        return None
    names = [name for name in points[-1] if name not in NOT_SUBNETS]
    series = [
        Series(
            label=f"{name} subnet",
            mark="line",
            role=ROLES.get(name, "faint"),
            x=[float(point["step"]) for point in points],
            y=rounded([point[name] for point in points]),
        )
        for name in reversed(names)
    ]
    guides = []
    if teacher is not None:
        value = rounded([teacher])[0]
        guides.append(Guide(axis="y", value=value, label="teacher", role="teacher"))
    return Chart(
        key="convergence",
        title="Convergence of the supernet",
        caption=(
            "Quality of always the same subnets on rows of the validation split while the "
            "supernet trains. It has converged when the largest reaches the teacher and the "
            "smallest rises no more."
        ),
        x=Axis(label="step of training", is_whole=True),
        y=quality_axis(record.metric),
        series=series,
        guides=guides,
    )


def _told(record: JobRecord) -> tuple[list[dict[str, Any]], float | None]:
    """By the events while it trains, and by the report of a job that trained none itself."""
    account = ((record.report or {}).get("supernet") or {}).get("convergence") or {}
    by_step = {event.data["step"]: event.data for event in record.events_of("convergence")}
    points = [by_step[step] for step in sorted(by_step)] or account.get("points", [])
    teacher = account.get("teacher")
    if teacher is None and points:
        teacher = points[-1].get("teacher")
    return points, teacher
