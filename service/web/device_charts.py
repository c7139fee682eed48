"""What is known of a device, as charts: how well latency is predicted, and how steady it is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from predictors.predictor import LatencyPredictor, scaled_medians_ms
from predictors.rows import LatencyRow
from predictors.workload import Workload
from search.errors import InvalidInput
from search.space import PRECISIONS
from service.database.models import MeasuringSession
from service.devices.predictor_store import StoredPredictor
from service.reports.charts import Axis, Chart, Guide, Role, Series, rounded

ROLES: tuple[Role, ...] = ("first", "second", "third", "fourth", "fifth", "sixth")
CLOSE = 0.05
"""An error within which a prediction counts as close."""
MEASURED = Axis(label="measured p50", unit="ms", is_log=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Learnt:
    """Predictors that were fitted for one runtime, provider, number of threads, phase and shape:
    one for each precision."""

    key: str
    title: str
    predictors: Sequence[LatencyPredictor]


def learnt_of(stored: Iterable[StoredPredictor]) -> list[Learnt]:
    """The newest first; those of another version, or of energy, are left out."""
    groups: dict[tuple[object, ...], list[tuple[StoredPredictor, LatencyPredictor]]] = {}
    for one in stored:
        try:
            predictor = LatencyPredictor.from_json(one.payload)
        except InvalidInput:
            continue
        key = predictor.key
        if key.quantity != "latency":
            continue
        place = (key.device_fingerprint, key.runtime, key.provider, key.threads, key.phase)
        groups.setdefault((*place, one.shape_key), []).append((one, predictor))
    return [
        Learnt(
            key=found[0][0].id,
            title=_title(found[0][1]),
            predictors=sorted(
                (predictor for _, predictor in found),
                key=lambda predictor: PRECISIONS.index(predictor.key.precision),
            ),
        )
        for found in groups.values()
    ]


def predicted_chart(learnt: Learnt) -> Chart:
    """Every measured network against what a fit without it predicts, with its interval."""
    series, ends = [], [math.inf, 0.0]
    for predictor, role in zip(learnt.predictors, ROLES, strict=False):
        measured = scaled_medians_ms(predictor.rows)
        predicted = predictor.cross_validated_ms()
        estimate = predictor.predict([row.point for row in predictor.rows])
        ends = [min(ends[0], float(measured.min())), max(ends[1], float(measured.max()))]
        series.append(
            Series(
                label=predictor.key.precision,
                mark="points",
                role=role,
                x=rounded(measured.tolist()),
                y=rounded(predicted.tolist()),
                low=rounded(np.minimum(predicted, estimate.lower_ms).tolist()),
                high=rounded(np.maximum(predicted, estimate.upper_ms).tolist()),
                names=[_network(row) for row in predictor.rows],
            )
        )
    if series:
        equal = Series(
            label="as measured", mark="line", role="faint", x=rounded(ends), y=rounded(ends)
        )
        series = [equal, *series]
    return Chart(
        key="predicted",
        title="Predicted and measured",
        caption="Each network as the device measured it, and as a fit without it predicts it, "
        "with the interval that holds nine times in ten.",
        x=MEASURED,
        y=Axis(label="predicted without it", unit="ms", is_log=True),
        series=series,
    )


def residuals_chart(learnt: Learnt) -> Chart:
    series = []
    for predictor, role in zip(learnt.predictors, ROLES, strict=False):
        measured = scaled_medians_ms(predictor.rows)
        series.append(
            Series(
                label=predictor.key.precision,
                mark="points",
                role=role,
                x=rounded(measured.tolist()),
                y=rounded((predictor.cross_validated_ms() / measured - 1).tolist()),
                names=[_network(row) for row in predictor.rows],
            )
        )
    return Chart(
        key="residuals",
        title="Error on networks left out",
        caption="How far each prediction is off; between the lines it is within 5 %.",
        x=MEASURED,
        y=Axis(label="error", form="percent"),
        series=series,
        guides=[
            Guide(axis="y", value=value, label=label, role="faint")
            for value, label in ((CLOSE, "+5 %"), (-CLOSE, "−5 %"))
        ],
    )


def anchors_chart(sessions: Sequence[MeasuringSession]) -> Chart:
    """Each anchor against its own first session at the same workload: 1 is as fast as then."""
    first: dict[tuple[str, str], float] = {}
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for session in sorted(sessions, key=lambda one: one.created_at):
        workload = Workload.from_dict(session.workload).key
        for anchor in session.anchors:
            key, median_ms = (workload, str(anchor["key"])), float(anchor["median_ms"])
            start = first.setdefault(key, median_ms)
            points.setdefault(key, []).append((session.created_at, median_ms / start))
    has_several = len({workload for workload, _ in points}) > 1
    places = {key: place for place, key in enumerate(points)}
    return Chart(
        key="anchors",
        title="Anchors over time",
        caption="The same networks in every session: a device that is as fast as at first stays "
        "at 1.",
        x=Axis(label="session", form="time"),
        y=Axis(label="latency by the first session's"),
        series=[
            Series(
                label=anchor.removesuffix("-anchor") + (f", {workload}" if has_several else ""),
                mark=mark,
                role=ROLES[places[workload, anchor] % len(ROLES)],
                x=[at for at, _ in found],
                y=rounded([ratio for _, ratio in found]),
            )
            for (workload, anchor), found in points.items()
            for mark in (("line", "points") if len(found) > 1 else ("points",))
        ],
        guides=[Guide(axis="y", value=1.0, label="first session", role="faint")],
    )


def noise_chart(sessions: Sequence[MeasuringSession]) -> Chart:
    """How much the same network's latency varies within a session."""
    series = []
    kinds: tuple[tuple[str, Role, bool], ...] = (
        ("quiet", "better", False),
        ("noisy", "worse", True),
    )
    for label, role, is_noisy in kinds:
        found = [
            (one.created_at, float(one.summary["noise_floor"]), one.id)
            for one in sessions
            if one.is_noisy is is_noisy and _is_figure(one.summary, "noise_floor")
        ]
        if found:
            series.append(
                Series(
                    label=label,
                    mark="points",
                    role=role,
                    x=[at for at, _, _ in found],
                    y=rounded([noise for _, noise, _ in found]),
                    names=[name for _, _, name in found],
                )
            )
    return Chart(
        key="noise",
        title="Noise floor",
        caption="How far medians of the same network lie apart within a session: no prediction "
        "can be closer than that. Noisy sessions are measured again.",
        x=Axis(label="session", form="time"),
        y=Axis(label="noise floor", form="percent", low=0.0),
        series=series,
    )


def _is_figure(summary: Mapping[str, object], name: str) -> bool:
    value = summary.get(name)
    return isinstance(value, int | float) and math.isfinite(value)


def _title(predictor: LatencyPredictor) -> str:
    key, shape = predictor.key, predictor.shape
    threads = f"{key.threads} thread{'' if key.threads == 1 else 's'}"
    provider = "" if key.provider == "cpu" else f" on {key.provider}"
    return (
        f"{key.runtime} {key.runtime_version}{provider}, {threads}, {key.phase}: "
        f"{shape.family}, {shape.num_layers} layers of {shape.embed_dim}"
    )


def _network(row: LatencyRow) -> str:
    """Short enough for a table: layers, heads and width of the feed-forward part on average."""
    subnet = row.subnet
    if not subnet.layers:
        return f"no layers, {row.seq_len} tokens"
    heads, ffn = (sum(values) / len(values) for values in (subnet.num_heads, subnet.ffn_dim))
    layers = f"{subnet.num_layers} layer{'' if subnet.num_layers == 1 else 's'}"
    return f"{layers}, {heads:.3g} heads, {ffn:.4g} wide, batch {row.batch_size} of {row.seq_len}"
