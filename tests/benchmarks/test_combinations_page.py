"""The page keeps its prose, names what is refused, and its pictures' numbers stand apart."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.combinations_figure import CLEARANCE, _free_place
from benchmarks.combinations_page import BEGIN, END, write_page


def recipe(name: str, group: str, quality: float, p50_ms: float, **own: Any) -> dict[str, Any]:
    return {
        "name": name,
        "group": group,
        "quality": quality,
        "shown": f"{quality:.1%}",
        "against_original": {"difference": quality - 0.8, "lower": -0.02, "upper": 0.01},
        "p50_ms": p50_ms,
        "speedup": 4.0 / p50_ms,
        "flops": round(1e6 * p50_ms),
        "file_bytes": 4_000_000,
        "gzip_bytes": round(1e6 * p50_ms),
        "paper_bytes": 4_000_000,
        **own,
    }


def figures(metric: str = "accuracy") -> dict[str, Any]:
    return {
        "families": {
            "bert": {
                "metric": metric,
                "rows": {"train": 7000, "test": 1500},
                "workload": {"seq_len": 64, "batch_size": 1},
                "steps_of_a_recipe": 138,
                "searched": {
                    "supernet_steps": 400,
                    "evaluations": 64,
                    "found_nothing": ["flops"],
                },
                "original": recipe("the original", "", 0.8, 4.0),
                "recipes": [
                    recipe("int8", "alone", 0.795, 1.6),
                    {"name": "quantize, prune", "group": "order", "refused": "rounded"},
                    recipe("prune, distil, quantize", "order", 0.78, 0.6),
                    recipe("untaught", "order", 0.5, 0.6),
                ],
            }
        }
    }


def test_tables_are_put_into_the_page_and_prose_stays(tmp_path: Path) -> None:
    page = tmp_path / "combinations.md"
    write_page(figures(), page)
    text = page.read_text().replace(END, f"{END}\nWhat was found.\n")
    page.write_text(f"Read this first.\n{text}")
    changed = figures()
    changed["families"]["bert"]["recipes"][0]["shown"] = "99.9%"
    write_page(changed, page)
    text = page.read_text()
    assert text.startswith("Read this first.")
    assert text.rstrip().endswith("What was found.")
    assert text.count(BEGIN) == text.count(END) == 1
    assert "| 1 | int8 | 99.9% | -0.5 [-2.0, +1.0] | 1.600 | 2.50 | 40% |" in text
    assert "| 2 | prune, distil, quantize |" in text
    assert "- Refused: *quantize, prune* (rounded)." in text
    assert "- The search by flops found nothing" in text
    assert (tmp_path / "combinations-bert.png").read_bytes().startswith(b"\x89PNG")


def test_likelihoods_are_shown_as_a_change_of_perplexity(tmp_path: Path) -> None:
    found = figures("log_likelihood")
    one = found["families"]["bert"]["recipes"][0]
    one["against_original"] = {"difference": -0.1, "lower": -0.2, "upper": 0.0}
    one["shown"] = "perplexity 40.00"
    write_page(found, tmp_path / "page.md")
    change, worst = 100 * (math.exp(0.1) - 1), 100 * (math.exp(0.2) - 1)
    cells = f"| 40.00 | {change:+.1f} [+0.0, {worst:+.1f}] |"
    assert cells in (tmp_path / "page.md").read_text()


def test_numbers_of_points_in_one_place_do_not_cover_each_other() -> None:
    spot = np.array([100.0, 100.0])
    taken = [spot] * 12
    for _ in range(12):
        taken.append(_free_place(spot, taken))
    for one, other in itertools.combinations(taken[11:], 2):
        assert np.hypot(*(one - other)) >= CLEARANCE - 1e-9 or one is spot


@pytest.mark.parametrize("lacking", [BEGIN, END])
def test_a_page_without_its_marks_is_not_overwritten(tmp_path: Path, lacking: str) -> None:
    page = tmp_path / "page.md"
    write_page(figures(), page)
    page.write_text(page.read_text().replace(lacking, ""))
    with pytest.raises(ValueError, match="lacks"):
        write_page(figures(), page)
