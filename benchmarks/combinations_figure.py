"""Quality against latency and against size: one point a recipe, by its number in the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

COLOURS = {
    "original": "#444444",
    "alone": "#8a94a6",
    "pair": "#2f6fde",
    "order": "#d9480f",
    "search": "#2f9e77",
}
LABELS = {
    "original": "the original",
    "alone": "one technique",
    "pair": "two techniques",
    "order": "orders of three",
    "search": "searched",
}
# Below this share of what the original is above the worst recipe, points stand on the edge.
SHOWN = 0.45
CLEARANCE = 17.0  # pixels between two numbers
STEPS = 60

Pixels = npt.NDArray[np.float64]


def draw_combinations(
    family: Mapping[str, Any],
    path: Path,
    *,
    title: str,
    numbered: Sequence[tuple[int, Mapping[str, Any]]],
) -> None:
    """Writes a PNG."""
    points = [(0, {**family["original"], "group": "original"}), *numbered]
    figure = Figure(figsize=(14, 6.4), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen, and without pyplot's global state
    left, right = figure.subplots(1, 2, sharey=True)
    metric = family["metric"]
    lowest = _lowest([_height(one, metric) for _, one in points])
    panels = [
        _Panel(axes, points, metric, name, scale, lowest)
        for axes, name, scale in ((left, "p50_ms", 1.0), (right, "gzip_bytes", 1e-6))
    ]
    for panel in panels:
        panel.scatter()
    left.set_xlabel("p50 latency, ms (log scale)")
    right.set_xlabel("MB of the file, gzipped (log scale)")
    is_likelihood = metric == "log_likelihood"
    left.set_ylabel("perplexity (log scale, downwards)" if is_likelihood else "accuracy, %")
    handles = [
        left.scatter([], [], color=COLOURS[group], s=40, label=LABELS[group]) for group in LABELS
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(LABELS), frameon=False)
    figure.suptitle(f"{title}: every recipe by its number in the table", fontsize=12)
    figure.canvas.draw()
    for panel in panels:
        panel.number()
    figure.savefig(path, dpi=110)


@dataclass(frozen=True, slots=True)
class _Panel:
    """Points at `name` times `scale` and at their quality, no lower than `lowest`."""

    axes: Axes
    points: Sequence[tuple[int, Mapping[str, Any]]]
    metric: str
    name: str
    scale: float
    lowest: float

    def scatter(self) -> None:
        axes = self.axes
        places = [self._place(one) for _, one in self.points]
        for (_, one), (x, height) in zip(self.points, places, strict=True):
            axes.scatter(
                x,
                max(height, self.lowest),
                s=46,
                marker="v" if height < self.lowest else "o",
                color=COLOURS[one["group"]],
                edgecolor="white",
                linewidth=0.6,
                zorder=3,
            )
        places.sort()
        best = np.maximum.accumulate([height for _, height in places])
        axes.step(
            [x for x, _ in places],
            np.maximum(best, self.lowest),
            where="post",
            color="#999999",
            linewidth=0.8,
            zorder=1,
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(_ticks([x for x, _ in places])))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        if self.metric == "log_likelihood":
            axes.yaxis.set_major_formatter(lambda height, _: f"{math.exp(-height):.0f}")
        axes.grid(alpha=0.25)

    def number(self) -> None:
        """Numbers beside the points, where no other point or number is."""
        places = [self._place(one) for _, one in self.points]
        xy = [(x, max(height, self.lowest)) for x, height in places]
        spots = self.axes.transData.transform(xy)
        taken = list(spots)
        for (number, one), data, spot in zip(self.points, xy, spots, strict=True):
            place = _free_place(spot, taken)
            taken.append(place)
            offset = (place - spot) * 72 / self.axes.figure.dpi
            self.axes.annotate(
                str(number),
                data,
                xytext=(float(offset[0]), float(offset[1])),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=8,
                color=COLOURS[one["group"]],
                arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5, "shrinkB": 3},
                zorder=4,
            )

    def _place(self, one: Mapping[str, Any]) -> tuple[float, float]:
        return one[self.name] * self.scale, _height(one, self.metric)


def _free_place(spot: Pixels, taken: Sequence[Pixels]) -> Pixels:
    """The nearest one on a spiral around the spot; the last one where all are taken."""
    others = np.array(taken)
    place = spot
    for step in range(STEPS):
        radius, angle = 18 + 1.2 * step, 0.9 * step + 0.8
        place = spot + radius * np.array([math.cos(angle), math.sin(angle)])
        if np.hypot(*(others - place).T).min() >= CLEARANCE:
            break
    return place


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers between the ends, more of them where these are near."""
    low, high = min(values), max(values)
    steps = (1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = (step * 10.0**exponent for exponent in exponents for step in steps)
    return [tick for tick in found if low / 1.1 <= tick <= high * 1.1]


def _height(one: Mapping[str, Any], metric: str) -> float:
    quality = float(one["quality"])
    return quality if metric == "log_likelihood" else 100 * quality


def _lowest(heights: Sequence[float]) -> float:
    """What is drawn at least: recipes that destroy a network would flatten all others."""
    original = heights[0]
    return max(min(heights), original - SHOWN * (original - min(heights)))
