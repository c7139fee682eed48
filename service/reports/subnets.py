"""One network of a job: what it is, where it stands, and where its latency goes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from search.shape import ModelShape
from search.space import SubnetConfig
from service.database.models import EvaluationRow
from service.devices import predicting
from service.devices.device_schemas import PredictedLatency, Prediction
from service.devices.devices import find_device
from service.jobs.job_spec import TargetSpec
from service.problems import NotFound, ProblemError
from service.reports.architecture import PART_WORDS, architecture_of
from service.reports.charts import Axis, Chart, Series, rounded
from service.reports.record import JobRecord
from service.reports.schema import Architecture, TargetFound

CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class SubnetReport:
    """Attributes:
    targets: that it was delivered for.
    evaluated: what the search knew of it; None of a network that it never looked at.
    predicted: latency on the first device that knows networks like it; None where none does.
    """

    fingerprint: str
    subnet: SubnetConfig
    architecture: Architecture | None
    targets: list[TargetFound]
    evaluated: dict[str, Any] | None
    predicted: PredictedLatency | None
    place: str
    parts: Chart | None


def subnet_report(
    session: Session, record: JobRecord, targets: list[TargetFound], fingerprint: str
) -> SubnetReport:
    """Raises: NotFound when the job knows no such network."""
    own = [target for target in targets if target.fingerprint == fingerprint]
    row = _evaluation(session, record.job.id, fingerprint)
    data = own[0].subnet if own else None if row is None else row.subnet
    if data is None:
        raise NotFound("network", fingerprint)
    subnet, shape = SubnetConfig.from_dict(data), record.shape
    spec = record.spec.targets[own[0].index if own else 0]
    predicted = _predicted(session, spec, shape, [subnet]) if shape else None
    full = (
        _predicted(session, spec, shape, [SubnetConfig.full(shape)])
        if shape and predicted
        else None
    )
    drawn = own[0].architecture if own else None
    if drawn is None and shape is not None:
        drawn = architecture_of(subnet, shape)
    return SubnetReport(
        fingerprint=fingerprint,
        subnet=subnet,
        architecture=drawn,
        targets=own,
        evaluated=None if row is None else _told(row),
        predicted=predicted,
        place=f"{spec.device}, {spec.workload.runtime}",
        parts=_parts_chart(predicted, full) if predicted else None,
    )


def _evaluation(session: Session, job_id: str, fingerprint: str) -> EvaluationRow | None:
    """The search's own, where it looked at it."""
    query = select(EvaluationRow).where(
        EvaluationRow.job_id == job_id, EvaluationRow.fingerprint == fingerprint
    )
    rows = sorted(session.scalars(query), key=lambda row: (row.source != "search", row.source))
    return rows[0] if rows else None


def _told(row: EvaluationRow) -> dict[str, Any]:
    names = ("quality", "num_rows", "latency_ms", "latency_lower_ms", "latency_upper_ms")
    figures = {name: row.metrics.get(name) for name in names}
    return {**figures, "source": row.source, "generation": row.generation}


def _predicted(
    session: Session, spec: TargetSpec, shape: ModelShape, subnets: list[SubnetConfig]
) -> PredictedLatency | None:
    """By the device's newest predictors; None where it has none of this kind."""
    device = find_device(session, spec.device)
    if device is None or spec.workload.runtime == "auto":
        return None
    asked = Prediction(
        shape=shape.to_dict(),
        workload=spec.workload,
        subnets=[subnet.to_dict() for subnet in subnets],
        statistic=spec.statistic,
    )
    try:
        return predicting.predict(session, device, asked).items[0]
    except (ProblemError, ValueError):
        return None


def _parts_chart(predicted: PredictedLatency, full: PredictedLatency | None) -> Chart:
    parts = list(predicted.breakdown)
    places = [float(place) for place in range(len(parts))]
    series = [
        Series(
            label="this network",
            mark="bars",
            role="search",
            x=places,
            y=rounded([predicted.mean_ms * predicted.breakdown[part] for part in parts]),
            low=[0.0 for _ in parts],
        )
    ]
    if full is not None:
        unsearched = Series(
            label="the unsearched model, fp32",
            mark="points",
            role="unsearched",
            x=places,
            y=rounded([full.mean_ms * full.breakdown.get(part, 0.0) for part in parts]),
        )
        series.insert(0, unsearched)
    return Chart(
        key="latency-parts",
        title="Predicted latency by part",
        caption=(
            "What the device's predictor takes each part of the network to cost; overhead is that "
            "of calls and layers by themselves, norms include the residuals."
        ),
        x=Axis(label="part", categories=[PART_WORDS.get(part, part) for part in parts]),
        y=Axis(label="latency", unit="ms"),
        series=series,
    )


def snippet_in(card: str) -> str | None:
    """The program in a model card that runs the ONNX file beside it."""
    found = CODE.search(card)
    return None if found is None else found.group(1).strip()
