"""A chart as plain data: the picture and the table beside it are both made from this."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import Field, model_validator

from service.schemas import Answer

SIGNIFICANT_DIGITS = 6
"""That charts keep: finer than any pixel, and than any measurement."""

Form = Literal["number", "percent", "time"]
Mark = Literal["points", "line", "step", "bars", "links"]
Role = Literal[
    "search",
    "infeasible",
    "random",
    "uniform",
    "flops",
    "earlier",
    "unsearched",
    "unsearched-int8",
    "winner",
    "teacher",
    "largest",
    "middle",
    "smallest",
    "better",
    "worse",
    "total",
    "plain",
    "faint",
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
]
"""What a series stands for: it has the same colour and shape in every chart."""


class Axis(Answer):
    """`categories` name the places 0, 1, 2, ... of an axis that counts nothing. `low` is where it
    begins; None leaves that to the picture. `is_whole`: there is nothing between two numbers."""

    label: str
    unit: str = ""
    is_log: bool = False
    form: Form = "number"
    categories: list[str] = Field(default_factory=list)
    low: float | None = None
    is_whole: bool = False

    @property
    def title(self) -> str:
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def show(self, value: float) -> str:
        """As people read it."""
        if self.categories and value == int(value) and 0 <= value < len(self.categories):
            return self.categories[int(value)]
        if self.form == "percent":
            return f"{value:.2%}"
        if self.form == "time":
            return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S")
        return f"{value:.{SIGNIFICANT_DIGITS}g}"


class Series(Answer):
    """Values of one kind. All lists have the same length, or are empty where there is none.

    Attributes:
        low: lower ends of intervals; of `bars` where each begins.
        high: upper ends of intervals.
        x_to: of `links`, where each line ends, together with `y_to`.
        names: of each point, as its row in the table is called.
    """

    label: str
    mark: Mark
    role: Role = "plain"
    x: list[float]
    y: list[float]
    low: list[float] = Field(default_factory=list)
    high: list[float] = Field(default_factory=list)
    x_to: list[float] = Field(default_factory=list)
    y_to: list[float] = Field(default_factory=list)
    names: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_parallel(self) -> Self:
        for name in ("y", "low", "high", "x_to", "y_to", "names"):
            values = getattr(self, name)
            if len(values) != len(self.x) and (values or name == "y"):
                raise ValueError(f"{self.label}: {len(values)} {name} for {len(self.x)} x")
        return self

    def __len__(self) -> int:
        return len(self.x)


class Guide(Answer):
    """A line across the chart, such as a budget."""

    axis: Literal["x", "y"]
    value: float
    label: str
    role: Role = "plain"


class Chart(Answer):
    """`key` is unique within a page; `caption` says what is to be seen, in one sentence."""

    key: str
    title: str
    caption: str
    x: Axis
    y: Axis
    series: list[Series]
    guides: list[Guide] = Field(default_factory=list)

    @property
    def num_points(self) -> int:
        return sum(len(series) for series in self.series)

    @property
    def columns(self) -> list[str]:
        """Of the table."""
        has = {name: any(getattr(s, name) for s in self.series) for name in Series.model_fields}
        return [
            "series",
            *(["name"] if has["names"] else []),
            *self._titles(self.x, "x_to" if has["x_to"] else ""),
            *self._titles(self.y, "y_to" if has["y_to"] else ""),
            *(["from"] if has["low"] else []),
            *(["to"] if has["high"] else []),
        ]

    def is_number(self, column: str) -> bool:
        """Whether the cells of a column of the table are figures."""
        if column in ("series", "name"):
            return False
        return not (self.x.categories and column == self.x.title)

    def _titles(self, axis: Axis, end: str) -> list[str]:
        return [f"{axis.title} (from)", f"{axis.title} (to)"] if end else [axis.title]

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[list[str]]:
        """Of the table, the chart's own data as text: every point and every guide.

        Args:
            stop: place of the first row that is left out; None for all.
        """
        columns = self.columns
        place = 0
        for series in self.series:
            first, last = max(0, start - place), len(series)
            if stop is not None:
                last = min(last, stop - place)
            for i in range(first, max(first, last)):
                yield self._row(columns, series, i)
            place += len(series)
        for guide in self.guides:
            if start <= place and (stop is None or place < stop):
                yield self._guide_row(columns, guide)
            place += 1

    @property
    def legend(self) -> list[Series]:
        """The first of each run of neighbours that stand for the same thing in other marks."""
        runs: list[list[Series]] = []
        for series in self.series:
            last = runs[-1] if runs else []
            is_same = bool(last) and last[-1].role == series.role and last[-1].mark != series.mark
            if is_same:
                last.append(series)
            else:
                runs.append([series])
        return [run[0] for run in runs]

    @property
    def num_rows(self) -> int:
        return self.num_points + len(self.guides)

    def _row(self, columns: Sequence[str], series: Series, i: int) -> list[str]:
        cells = [series.label]
        if "name" in columns:
            cells.append(series.names[i] if series.names else "")
        cells.append(self.x.show(series.x[i]))
        if f"{self.x.title} (to)" in columns:
            cells.append(self.x.show(series.x_to[i]) if series.x_to else "")
        cells.append(self.y.show(series.y[i]))
        if f"{self.y.title} (to)" in columns:
            cells.append(self.y.show(series.y_to[i]) if series.y_to else "")
        for column, values in (("from", series.low), ("to", series.high)):
            if column in columns:
                cells.append(self.y.show(values[i]) if values else "")
        return cells

    def _guide_row(self, columns: Sequence[str], guide: Guide) -> list[str]:
        axis = self.x if guide.axis == "x" else self.y
        cells = dict.fromkeys(columns, "")
        cells["series"] = guide.label
        title = axis.title if axis.title in cells else f"{axis.title} (from)"
        cells[title] = axis.show(guide.value)
        return list(cells.values())


def rounded(values: Sequence[float]) -> list[float]:
    """To what a chart keeps.

    Raises:
        ValueError: one is no finite number.
    """
    if not all(map(math.isfinite, values)):
        raise ValueError("a chart shows finite numbers")
    return [float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values]
