"""Quality over latency, drawn with characters: a glyph for each kind of point, so that the picture
also tells without colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

MIN_WIDTH, MIN_HEIGHT = 24, 5
UNIT = " ms"
# How far beyond the loosest budget is drawn; what is slower stands at the right edge.
FURTHEST = 1.6


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of the chart."""

    latency_ms: float
    quality: float
    kind: str


@dataclass(frozen=True, slots=True)
class Glyph:
    """How a kind of point is drawn; later kinds cover earlier ones."""

    text: str
    ascii: str
    style: str
    title: str


GLYPHS = {
    "compared": Glyph("·", ".", "dim", "compared"),
    "slow": Glyph("×", "x", "dim red", "too slow"),
    "kept": Glyph("•", "o", "green", "within budget"),
    "best": Glyph("★", "*", "bold magenta", "best"),
    "measured": Glyph("◆", "@", "bold cyan", "measured"),
}
BUDGET = Glyph("┊", "|", "yellow", "budget")
KINDS = tuple(GLYPHS)


def draw_front(
    marks: Sequence[Mark],
    budgets_ms: Sequence[float],
    *,
    width: int,
    height: int,
    show_quality: Callable[[float], str],
    is_ascii: bool = False,
) -> list[Text]:
    """Lines of at most `width` characters: `height` of points, an axis, its numbers, a legend.

    Empty where there is nothing to draw, or no room for it.
    """
    if not marks or height < MIN_HEIGHT:
        return []
    scale = _Scale.of(marks, budgets_ms)
    labels = [show_quality(scale.highest), show_quality(scale.lowest)]
    margin = max(map(len, labels))
    # The last number under the axis may end after it.
    columns = width - margin - 2 - len(UNIT)
    if columns < MIN_WIDTH:
        return []
    cells = _cells(marks, scale, columns, height)
    lines_at = {scale.column(ms, columns) for ms in budgets_ms}
    wall = "|" if is_ascii else "│"
    drawn = []
    for row in range(height):
        label = {0: labels[0], height - 1: labels[1]}.get(row, "")
        line = Text(f"{label:>{margin}} {wall}", style="dim")
        for column in range(columns):
            line.append_text(_cell(cells.get((row, column)), column in lines_at, is_ascii))
        drawn.append(line)
    corner, floor = ("+", "-") if is_ascii else ("└", "─")
    drawn.append(Text(" " * (margin + 1) + corner + floor * columns, style="dim"))
    drawn.append(_numbers(scale, budgets_ms, columns, margin + 2))
    kinds = [kind for kind in KINDS if any(mark.kind == kind for mark in marks)]
    drawn.append(_legend(kinds, bool(budgets_ms), margin + 2, is_ascii))
    for line in drawn:
        line.truncate(width)
    return drawn


@dataclass(frozen=True, slots=True)
class _Scale:
    fastest_ms: float
    slowest_ms: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, marks: Sequence[Mark], budgets_ms: Sequence[float]) -> _Scale:
        latencies = [mark.latency_ms for mark in marks]
        slowest_ms = max([*latencies, *budgets_ms])
        if budgets_ms:
            slowest_ms = min(slowest_ms, FURTHEST * max(budgets_ms))
        fastest_ms = min([*latencies, *budgets_ms])
        qualities = [mark.quality for mark in marks]
        return cls(min(fastest_ms, slowest_ms), slowest_ms, min(qualities), max(qualities))

    def column(self, latency_ms: float, columns: int) -> int:
        return _place(latency_ms, self.fastest_ms, self.slowest_ms, columns)

    def row(self, quality: float, rows: int) -> int:
        return rows - 1 - _place(quality, self.lowest, self.highest, rows)


def _place(value: float, lowest: float, highest: float, count: int) -> int:
    share = (value - lowest) / (highest - lowest) if highest > lowest else 0.5
    return round(min(1.0, max(0.0, share)) * (count - 1))


def _cells(
    marks: Sequence[Mark], scale: _Scale, columns: int, rows: int
) -> dict[tuple[int, int], str]:
    """The kind of the most telling mark of each cell."""
    cells = {}
    for mark in sorted(marks, key=lambda mark: KINDS.index(mark.kind)):
        place = scale.row(mark.quality, rows), scale.column(mark.latency_ms, columns)
        cells[place] = mark.kind
    return cells


def _cell(kind: str | None, is_budget: bool, is_ascii: bool) -> Text:
    if kind is None and not is_budget:
        return Text(" ")
    glyph = GLYPHS[kind] if kind is not None else BUDGET
    return Text(glyph.ascii if is_ascii else glyph.text, style=glyph.style)


def _numbers(scale: _Scale, budgets_ms: Sequence[float], columns: int, margin: int) -> Text:
    """Under the axis: the budgets first, then the ends where they leave room."""
    line = [" "] * (columns + len(UNIT))
    ends = (scale.fastest_ms, scale.slowest_ms)
    for value in dict.fromkeys([*sorted(budgets_ms), *ends]):
        label = f"{value:.3g}{UNIT}"
        start = scale.column(value, columns) - len(label) // 2
        start = max(0, min(start, len(line) - len(label)))
        around = line[max(0, start - 1) : start + len(label) + 1]
        if all(character == " " for character in around):
            line[start : start + len(label)] = label
    return Text(" " * margin + "".join(line).rstrip(), style="yellow")


def _legend(kinds: Sequence[str], has_budgets: bool, margin: int, is_ascii: bool) -> Text:
    legend = Text(" " * margin)
    glyphs = [GLYPHS[kind] for kind in reversed(kinds)] + ([BUDGET] if has_budgets else [])
    for place, glyph in enumerate(glyphs):
        legend.append("   " if place else "")
        legend.append(glyph.ascii if is_ascii else glyph.text, style=glyph.style)
        legend.append(f" {glyph.title}", style="dim")
    return legend
