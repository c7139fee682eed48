"""The picture of a job: what was found, what chance found, what was there, what was promised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from search.pareto import Candidate, ParetoFront

# By what found the networks; the search is drawn last, on top.
COLOURS = {
    "random": "#b0b7c3",
    "uniform": "#2f9e77",
    "flops": "#b8860b",
    "earlier": "#8c7ae6",
    "search": "#2f6fde",
}


def draw_front(report: dict[str, Any], candidates: Sequence[Candidate], path: Path) -> None:
    """Writes a PNG. Candidates stand at predicted latency and search-split quality; winners and
    the unsearched models at measured latency and test quality."""
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.add_subplot()
    for source, colour in COLOURS.items():
        own = [c for c in candidates if c.source == source]
        if not own:
            continue
        axes.scatter(
            [c.latency_ms for c in own], [c.quality for c in own], s=12, color=colour, alpha=0.45
        )
        front = list(ParetoFront.of(own))
        axes.step(
            [c.latency_ms for c in front],
            [c.quality for c in front],
            where="post",
            color=colour,
            label=f"{source}: front, inherited weights",
        )
    for key, marker, label in (
        ("baseline", "s", "unsearched, fp32"),
        ("quantized_only", "D", "unsearched, int8"),
    ):
        if report[key]:
            axes.scatter(
                report[key]["p50_ms"],
                report[key]["quality"],
                marker=marker,
                color="#444",
                s=46,
                label=f"{label} (measured, test split)",
            )
    _draw_targets(axes, report["targets"])
    axes.set_xscale("log")
    for axis_part in ("set_major_formatter", "set_minor_formatter"):
        getattr(axes.xaxis, axis_part)(FormatStrFormatter("%g"))
    axes.set_xlabel("p50 latency, ms (log scale)")
    axes.set_ylabel(report["metric"].replace("_", " "))
    axes.grid(alpha=0.25, which="both")
    axes.legend(loc="lower right", fontsize=8)
    axes.set_title("Quality against latency", loc="left")
    FigureCanvasAgg(figure)  # draws without a screen, and without pyplot's global state
    figure.savefig(path, dpi=130)


def _draw_targets(axes: Any, targets: Sequence[dict[str, Any]]) -> None:
    for index, target in enumerate(targets):
        axes.axvline(target["budget_ms"], color="#d9480f", linestyle=":", linewidth=1)
        axes.annotate(
            f"budget {target['budget_ms']:.2f} ms",
            (target["budget_ms"], 0.02),
            xycoords=("data", "axes fraction"),
            rotation=90,
            fontsize=7,
            ha="right",
            color="#d9480f",
        )
        if target.get("quality") is not None:
            axes.scatter(
                target["p50_ms"],
                target["quality"],
                marker="*",
                s=190,
                color="#d9480f",
                edgecolor="white",
                zorder=5,
                label="winners (measured, test split)" if index == 0 else None,
            )
