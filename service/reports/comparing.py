"""Two to six searches or networks side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from search.errors import InvalidInput
from service.jobs import jobs
from service.problems import NotFound
from service.reports.building import build_report
from service.reports.charts import Axis, Chart, Role, Series, rounded
from service.reports.record import JobRecord
from service.reports.schema import JobReport, TargetFound
from service.reports.subnets import SubnetReport, subnet_report
from service.reports.words import quality_axis, targets_phrase

FEWEST, MOST = 2, 6
ROLES: tuple[Role, ...] = ("first", "second", "third", "fourth", "fifth", "sixth")


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """A search, or one network of it. `item` names it in an address: `job`, or `job/network`."""

    item: str
    title: str
    report: JobReport
    subnet: SubnetReport | None

    @property
    def targets(self) -> Sequence[TargetFound]:
        """Those whose figures are compared."""
        return self.report.targets if self.subnet is None else self.subnet.targets


def compare(session: Session, items: Sequence[str]) -> list[Compared]:
    """Raises:
    InvalidInput: fewer than two, more than six, or one twice.
    NotFound: the session's tenant has no such job or network.
    """
    if not FEWEST <= len(items) <= MOST:
        raise InvalidInput("item", f"choose from {FEWEST} to {MOST} to compare, got {len(items)}")
    if len(set(items)) < len(items):
        raise InvalidInput("item", "names something twice")
    return [_compared(session, item) for item in items]


def _compared(session: Session, item: str) -> Compared:
    job_id, _, fingerprint = item.partition("/")
    row = jobs.get_job(session, job_id, jobs.SEARCH)
    if row is None:
        raise NotFound("search job", job_id)
    record = JobRecord.read(session, row, time.time())
    report = build_report(record)
    subnet = subnet_report(session, record, report.targets, fingerprint) if fingerprint else None
    name = report.name or report.id
    if subnet is None:
        title = name
    elif subnet.targets:
        title = f"{name}: {targets_phrase([target.index for target in subnet.targets])}"
    else:
        title = f"{name}: {fingerprint[:8]}"
    return Compared(item=item, title=title, report=report, subnet=subnet)


def compared_chart(found: Sequence[Compared]) -> Chart | None:
    """Fronts of searches and places of networks; None where their qualities are of two kinds."""
    metrics = {one.report.metric for one in found}
    if len(metrics) > 1:
        return None
    series = [part for one, role in zip(found, ROLES, strict=False) for part in _series(one, role)]
    if not series:
        return None
    return Chart(
        key="compared",
        title="Quality against latency",
        caption=(
            "Lines are the fronts of searches, by predicted latency and inherited weights on the "
            "search split; dots are what was delivered, measured on the device, on the test split."
        ),
        x=Axis(label="latency", unit="ms", is_log=True),
        y=quality_axis(metrics.pop()),
        series=series,
    )


def _series(one: Compared, role: Role) -> list[Series]:
    found = []
    delivered = [
        (target, target.p50_ms, target.quality)
        for target in one.targets
        if target.p50_ms is not None and target.quality is not None
    ]
    if delivered:
        found.append(
            Series(
                label=one.title,
                mark="points",
                role=role,
                x=rounded([ms for _, ms, _ in delivered]),
                y=rounded([quality for _, _, quality in delivered]),
                names=[f"target {target.index}" for target, _, _ in delivered],
            )
        )
    front = one.report.chart("front") if one.subnet is None else None
    lines = [s for s in front.series if s.mark == "step" and s.role == "search"] if front else []
    found += [
        line.model_copy(update={"label": f"{one.title}: front", "role": role}) for line in lines
    ]
    evaluated = one.subnet.evaluated if one.subnet is not None else None
    if not delivered and evaluated is not None:
        found.append(
            Series(
                label=f"{one.title} (predicted)",
                mark="points",
                role=role,
                x=rounded([evaluated["latency_ms"]]),
                y=rounded([evaluated["quality"]]),
                names=["as it was found"],
            )
        )
    return found
