"""The front as characters: where points stand, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.cli.front_chart import Mark, draw_front

WIDTH, HEIGHT = 60, 8


def draw(
    marks: Sequence[Mark],
    budgets_ms: Sequence[float] = (),
    width: int = WIDTH,
    height: int = HEIGHT,
    is_ascii: bool = False,
) -> list[str]:
    lines = draw_front(
        marks, budgets_ms, width=width, height=height, show_quality="{:.2f}".format,
        is_ascii=is_ascii,
    )  # fmt: skip
    return [line.plain for line in lines]


def test_better_is_higher_and_slower_is_further_right() -> None:
    marks = [Mark(1.0, 0.5, "kept"), Mark(2.0, 0.7, "kept"), Mark(3.0, 0.9, "best")]
    drawn = draw(marks)
    assert all(len(line) <= WIDTH for line in drawn)
    assert "★" in drawn[0]
    places = [(i, line.index("•")) for i, line in enumerate(drawn[:HEIGHT]) if "•" in line]
    assert places == sorted(places, key=lambda place: -place[1])
    assert drawn[0].startswith("0.90 │")
    assert drawn[HEIGHT - 1].startswith("0.50 │")
    assert "1 ms" in drawn[-2]
    assert "3 ms" in drawn[-2]
    assert drawn[-1].split() == ["★", "best", "•", "within", "budget"]


def test_a_budget_is_a_line_and_what_is_far_beyond_stands_at_the_edge() -> None:
    marks = [Mark(1.0, 0.5, "kept"), Mark(100.0, 0.6, "slow")]
    drawn = draw(marks, budgets_ms=[2.0])
    columns = {line.index("┊") for line in drawn[:HEIGHT] if "┊" in line}
    assert len(columns) == 1
    (edge,) = [line.index("×") for line in drawn[:HEIGHT] if "×" in line]
    assert edge == max(len(line.rstrip()) for line in drawn[:HEIGHT]) - 1
    assert "2 ms" in drawn[-2]
    assert "3.2 ms" in drawn[-2]  # the end of the axis, not the slow one's latency


def test_of_points_in_one_place_the_most_telling_is_seen() -> None:
    marks = [Mark(1.0, 0.5, kind) for kind in ("best", "compared", "kept")]
    assert "".join(draw(marks)[:HEIGHT]).count("★") == 1


@pytest.mark.parametrize("marks", [[Mark(1.0, 0.5, "kept")], [Mark(1.0, 0.5, "kept")] * 2])
def test_points_that_are_all_alike_are_drawn(marks: list[Mark]) -> None:
    assert "•" in "".join(draw(marks, budgets_ms=[1.0]))


def test_there_is_no_chart_of_nothing_or_without_room() -> None:
    one = [Mark(1.0, 0.5, "kept")]
    assert draw([]) == []
    assert draw(one, height=3) == []
    assert draw(one, width=20) == []


def test_a_terminal_without_unicode_gets_ascii() -> None:
    kinds = ("compared", "slow", "kept", "best", "measured")
    marks = [Mark(1.0 + i, 0.1 * i, kind) for i, kind in enumerate(kinds)]
    drawn = "\n".join(draw(marks, budgets_ms=[2.0], is_ascii=True))
    assert drawn.isascii()
    assert all(glyph in drawn for glyph in ".xo*@|")


def test_ten_thousand_points_are_drawn_in_as_many_lines() -> None:
    marks = [Mark(1.0 + i / 1e4, (i * 7919 % 10_000) / 1e4, "kept") for i in range(10_000)]
    assert len(draw(marks, budgets_ms=[1.5])) == HEIGHT + 3
