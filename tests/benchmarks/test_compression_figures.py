"""The whole study on a network of three layers: every figure is found, and what is chosen fits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import candidates, compression_figures
from benchmarks.compression_figures import _Study
from benchmarks.techniques import VOCABULARY
from tests.benchmarks.subjects import subject

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression_figures, "prepare", lambda *_, **__: subject())
        patch.setattr(compression_figures, "QUICK_EPOCHS", 1.0)
        for name in ("SMALLER", "SMALLEST", "SEARCHED"):  # its tokens are of no tokenizer
            chosen = [s for s in getattr(candidates, name) if VOCABULARY not in s]
            patch.setattr(candidates, name, tuple(chosen))
        study = _Study(tmp_path_factory.mktemp("state"), is_quick=True)
        found: dict[str, Any] = json.loads(json.dumps(study.figures()))
    return found


def test_every_figure_is_reported_once(figures: dict[str, Any]) -> None:
    names = [one["what"] for one in figures["figures"]]
    assert len(set(names)) == len(names) == 11
    assert all(isinstance(one["is_met"], bool) for one in figures["figures"])


def test_what_is_chosen_for_a_speed_is_as_fast(figures: dict[str, Any]) -> None:
    for one in figures["figures"]:
        if "times faster" in one["what"] and one["found"] is not None:
            assert one["recipe"]["speedup"] >= int(one["what"].split()[0])
            assert one["found"] == one["recipe"]["test"]["kept"]


def test_a_recipe_that_was_not_chosen_shows_nothing_of_the_test_split(
    figures: dict[str, Any],
) -> None:
    assert all("test" not in one and "validation" in one for one in figures["recipes"])


def test_distillation_wins_back_what_pruning_cost(figures: dict[str, Any]) -> None:
    (recovery,) = (one for one in figures["figures"] if "won back" in one["what"])
    pruned, short, taught = recovery["qualities"].values()
    assert taught >= pruned
    assert recovery["after_all"]["share"] >= recovery["found"]
    assert short > 0
