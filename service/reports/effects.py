"""What every stage did to a target's network, as rows and as waterfalls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.reports.charts import Axis, Chart, Series, rounded
from service.reports.schema import Effect
from service.reports.words import STAGE_WORDS, quality_axis


def effects_of(figures: dict[str, Any], unsearched: dict[str, Any] | None) -> list[Effect]:
    """From the unsearched model to the exported file, stage by stage.

    Args:
        figures: of the target, as the job's report has them.
        unsearched: those of the fine-tuned model in fp32; it is on the test split, as the last.
    """
    found = []
    if unsearched is not None:
        found.append(
            Effect(
                stage="fine-tuned",
                quality=unsearched["quality"],
                latency_ms=unsearched["p50_ms"],
                size_bytes=unsearched["size_bytes"],
                note="the unsearched model in fp32, measured, on the test split",
            )
        )
    for record in figures["stages"]:
        found.append(
            Effect(
                stage=STAGE_WORDS.get(record["stage"], record["stage"]),
                quality=record.get("quality"),
                latency_ms=record.get("latency_ms"),
                size_bytes=record.get("size_bytes"),
                kept=record.get("kept", True),
                note=record.get("note", ""),
            )
        )
    return found


def waterfalls(effects: Sequence[Effect], index: int, metric: str) -> list[Chart]:
    """Of quality, latency and size; of what at least two stages tell."""
    kept = [effect for effect in effects if effect.kept]
    wanted = (
        ("quality", "Quality", quality_axis(metric), 1.0, True),
        ("latency_ms", "Latency", Axis(label="p50 latency", unit="ms"), 1.0, False),
        ("size_bytes", "Size", Axis(label="size of the file", unit="MB"), 1e-6, False),
    )
    charts = []
    for name, title, axis, factor, is_more_better in wanted:
        told = [
            (effect.stage, value * factor)
            for effect in kept
            if (value := getattr(effect, name)) is not None
        ]
        if len(told) < 2:
            continue
        values = rounded([value for _, value in told])
        low = _shortened(values)
        cut = "" if low is None else " The axis does not begin at 0."
        charts.append(
            Chart(
                key=f"waterfall-{index}-{name.split('_')[0]}",
                title=f"{title}, stage by stage",
                caption=_CAPTIONS[name] + cut,
                x=Axis(label="stage", categories=[stage for stage, _ in told]),
                y=axis.model_copy(update={"low": low}),
                series=_bars(values, is_more_better),
            )
        )
    return charts


def _shortened(values: Sequence[float]) -> float | None:
    """Where the axis is to begin so that small changes are seen; None for 0."""
    lowest, highest = min(values), max(values)
    if lowest <= 0 or highest > 2 * lowest:
        return None
    return rounded([max(0.0, lowest - max(highest - lowest, 0.02 * lowest))])[0]


_CAPTIONS = {
    "quality": (
        "The first bar is the fine-tuned model's on the test split, the last the exported file's "
        "on the same; those between are on the splits that the stages see."
    ),
    "latency_ms": (
        "The first and the last bar were measured on the device; those between are predicted."
    ),
    "size_bytes": "Of the ONNX file.",
}


def _bars(values: Sequence[float], is_more_better: bool) -> list[Series]:
    """The first and the last value from 0, every change between from the value before."""
    last = len(values) - 1
    totals = [(0, values[0]), (last, values[last])]
    rises = [(i, values[i - 1], values[i]) for i in range(1, last)]
    better = [c for c in rises if (c[2] > c[1]) == is_more_better and c[2] != c[1]]
    worse = [c for c in rises if (c[2] > c[1]) != is_more_better and c[2] != c[1]]
    same = [c for c in rises if c[2] == c[1]]
    found = [
        Series(
            label="before and after",
            mark="bars",
            role="total",
            x=[float(i) for i, _ in totals],
            y=[value for _, value in totals],
            low=[0.0 for _ in totals],
        )
    ]
    for label, role, changes in (
        ("better", "better", better),
        ("worse", "worse", worse),
        ("unchanged", "plain", same),
    ):
        if changes:
            found.append(
                Series(
                    label=label,
                    mark="bars",
                    role=role,
                    x=[float(i) for i, _, _ in changes],
                    y=[after for _, _, after in changes],
                    low=[before for _, before, _ in changes],
                )
            )
    return found
