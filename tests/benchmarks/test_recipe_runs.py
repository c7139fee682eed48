"""Recipes that begin alike share it, a stopped run goes on, and the order shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.recipe_runs import RecipeRuns, spelled
from benchmarks.techniques import AWARE, DISTIL, INT8, WIDTHS, within_budget
from search.compress import pipeline
from search.compress.configs import DistillConfig, PruneConfig
from search.compress.network import Compressed, StageData
from search.compress.recipe import StageConfig
from search.compress.stages import apply_stage
from search.errors import InvalidInput
from search.training.evaluate import evaluate
from tests.benchmarks.subjects import RATE
from tests.search.compress.data import SEQ_LEN, network, ordered, stage_data

LAYERS = PruneConfig(keep=1.0, num_layers=2)


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kinds of the stages that were really applied."""
    kinds: list[str] = []

    def noting(found: Compressed, config: StageConfig, data: StageData) -> Compressed:
        kinds.append(config.kind)
        return apply_stage(found, config, data)

    monkeypatch.setattr(pipeline, "apply_stage", noting)
    return kinds


def test_a_beginning_that_several_recipes_share_is_run_once(
    tmp_path: Path, applied: list[str]
) -> None:
    runs = RecipeRuns(network(), stage_data(), tmp_path)
    taught = within_budget((WIDTHS, DISTIL), epochs=0.5, learning_rate=RATE)
    alone = runs.run(taught)
    rounded = runs.run((*taught, INT8))
    assert applied == ["prune", "distill", "quantize"]
    assert rounded.reports[:2] == alone.reports
    assert rounded.network.subnet.precision == "int8"
    assert rounded.seconds >= alone.seconds
    assert rounded.key != alone.key


def test_what_was_run_before_is_read_and_the_same(tmp_path: Path, applied: list[str]) -> None:
    stages = within_budget((WIDTHS, DISTIL), epochs=0.5, learning_rate=RATE)
    first = RecipeRuns(network(), stage_data(), tmp_path).run(stages)
    again = RecipeRuns(network(), stage_data(), tmp_path).run(stages)
    assert applied == ["prune", "distill"]
    assert again.reports == first.reports
    for one, other in zip(
        first.network.model.parameters(), again.network.model.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_an_impossible_order_is_refused_before_anything_is_trained(
    tmp_path: Path, applied: list[str]
) -> None:
    with pytest.raises(InvalidInput, match="rounded weights are final"):
        RecipeRuns(network(), stage_data(), tmp_path).run((DISTIL, INT8, WIDTHS))
    assert applied == []


def test_distilling_last_beats_pruning_what_was_distilled(tmp_path: Path) -> None:
    """The same stages and training, the same sizes in the end (arXiv 2511.19495)."""
    runs = RecipeRuns(network(), stage_data(), tmp_path)
    harsh = PruneConfig(keep=0.2)

    def accuracy(*stages: StageConfig) -> float:
        stages = within_budget(stages, epochs=3, learning_rate=RATE)
        found = runs.run(stages).network
        assert found.flops(SEQ_LEN) < 0.2 * network().flops(SEQ_LEN)
        return evaluate(found.model, ordered(400, seed=3)).value

    assert accuracy(LAYERS, harsh, DISTIL) > accuracy(LAYERS, DISTIL, harsh) + 0.05


def test_a_recipe_is_spelled_by_what_is_not_usual() -> None:
    stages = (PruneConfig(keep=0.25, num_layers=3), DistillConfig(epochs=3.0), AWARE, INT8)
    assert spelled(stages) == (
        "prune (keep 0.25, num_layers 3), distill, quantize (aware_epochs 1.0), quantize"
    )
