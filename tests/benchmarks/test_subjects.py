"""What a subject has its recipes learn from."""

from __future__ import annotations

from pathlib import Path

from benchmarks.recipe_runs import RecipeRuns
from benchmarks.techniques import DISTIL, LABELS, MAPS, WIDTHS
from tests.benchmarks.subjects import subject


def test_the_teacher_tells_of_attention_where_a_stage_asks_for_it(tmp_path: Path) -> None:
    one = subject()
    assert one.data_of((WIDTHS, DISTIL, LABELS)) is one.data
    stages = (WIDTHS, MAPS)
    ran = RecipeRuns(one.whole, one.data_of(stages), tmp_path).run(stages)
    assert [report["stage"]["kind"] for report in ran.reports] == ["prune", "distill"]
