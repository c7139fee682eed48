"""A device in one picture: predicted against measured, how far off, and its anchors over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from predictors.predictor import LatencyPredictor, scaled_medians_ms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"fp32": "#2563eb", "int8": "#d97706"}
GREY = "#6b7280"
SIZE_INCHES = (13.0, 4.2)
DPI = 150


def draw_device(
    path: Path,
    *,
    name: str,
    predictors: Sequence[Mapping[str, Any]],
    sessions: Sequence[Mapping[str, Any]],
) -> None:
    """Writes a PNG.

    Args:
        predictors: payloads, see `LatencyPredictor.to_json`.
        sessions: `created_at` in epoch seconds and `anchors` ({key, median_ms}) of each session.

    Raises:
        InvalidInput: a payload is of another version.
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    fitted = [LatencyPredictor.from_json(payload) for payload in predictors]
    _draw_predicted(left, fitted)
    _draw_residuals(middle, fitted)
    _draw_anchors(right, sessions)
    figure.suptitle(name, fontsize=12)
    figure.savefig(path)


def _draw_predicted(axes: Axes, fitted: Sequence[LatencyPredictor]) -> None:
    """Every measured network against what a fit without it predicts, with its interval."""
    highest = 0.0
    lowest = np.inf
    for predictor in fitted:
        measured = scaled_medians_ms(predictor.rows)
        estimate = predictor.predict([row.point for row in predictor.rows])
        predicted = predictor.cross_validated_ms()
        below = np.maximum(predicted - estimate.lower_ms, 0)
        above = np.maximum(estimate.upper_ms - predicted, 0)
        axes.errorbar(
            measured,
            predicted,
            yerr=np.stack([below, above]),
            fmt="o",
            markersize=3,
            linewidth=0.6,
            color=COLORS.get(predictor.key.precision, GREY),
            label=_label(predictor),
        )
        highest = max(highest, float(measured.max()), float(predicted.max()))
        lowest = min(lowest, float(measured.min()))
    if fitted:
        axes.plot([lowest, highest], [lowest, highest], color=GREY, linewidth=0.8)
        axes.legend(fontsize=7, frameon=False)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="measured p50 [ms]",
        ylabel="predicted without it [ms]",
        title="Predicted and measured",
    )


def _draw_residuals(axes: Axes, fitted: Sequence[LatencyPredictor]) -> None:
    for predictor in fitted:
        measured = scaled_medians_ms(predictor.rows)
        errors = 100 * (predictor.cross_validated_ms() / measured - 1)
        axes.plot(
            measured, errors, "o", markersize=3, color=COLORS.get(predictor.key.precision, GREY)
        )
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axhspan(-5, 5, color=GREY, alpha=0.12, linewidth=0)
    axes.set(
        xscale="log",
        xlabel="measured p50 [ms]",
        ylabel="error [%]",
        title="Error on networks left out",
    )


def _draw_anchors(axes: Axes, sessions: Sequence[Mapping[str, Any]]) -> None:
    """Each anchor against its own first session at the same workload: 1 is as fast as then."""
    from matplotlib.dates import date2num

    first: dict[tuple[str, str], float] = {}
    series: dict[tuple[str, str], list[tuple[datetime, float]]] = {}
    for session in sorted(sessions, key=lambda s: float(s["created_at"])):
        at = datetime.fromtimestamp(float(session["created_at"]), tz=UTC)
        for anchor in session["anchors"]:
            key = str(session.get("workload_key", "")), str(anchor["key"])
            start = first.setdefault(key, float(anchor["median_ms"]))
            series.setdefault(key, []).append((at, float(anchor["median_ms"]) / start))
    for (_, anchor_key), points in series.items():
        times, ratios = zip(*points, strict=True)
        axes.plot(times, ratios, "o-", markersize=3, linewidth=0.8, label=anchor_key)
    handles = {
        label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        axes.legend(handles.values(), handles.keys(), fontsize=7, frameon=False)
    axes.axhline(1, color=GREY, linewidth=0.8)
    if len({at for points in series.values() for at, _ in points}) == 1:
        at = next(iter(series.values()))[0][0]
        hour = timedelta(hours=1)
        ends = [float(date2num(end)) for end in (at - hour, at + hour)]  # type: ignore[no-untyped-call]
        axes.set_xlim(*ends)
    axes.tick_params(axis="x", labelrotation=30, labelsize=7)
    axes.set(xlabel="session (UTC)", ylabel="latency / first session", title="Anchors over time")


def _label(predictor: LatencyPredictor) -> str:
    key = predictor.key
    return f"{key.runtime} {key.precision}, {key.threads} thread{'s' if key.threads > 1 else ''}"
