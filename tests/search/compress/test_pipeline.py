from __future__ import annotations

from pathlib import Path

import pytest
import torch

from search.compress import pipeline
from search.compress.configs import (
    DistillConfig,
    PruneAndDistillConfig,
    PruneConfig,
    QuantizeConfig,
    SparsifyConfig,
)
from search.compress.network import Compressed, StageData
from search.compress.pipeline import CompressionTarget, StageReport, run_recipe
from search.compress.recipe import CompressionRecipe, StageConfig
from search.compress.sparsify import sparsity_of
from search.compress.stages import apply_stage
from search.training.evaluate import evaluate
from tests.search.compress.data import SEQ_LEN, network, stage_data

DISTILL = DistillConfig(epochs=3, learning_rate=3e-3)
FLOPS = CompressionTarget(cost="flops", min_quality=0.9)


def run(
    *stages: StageConfig,
    target: CompressionTarget | None = FLOPS,
    checkpoints: Path | None = None,
) -> tuple[Compressed, list[StageReport]]:
    found = network()
    reports = []
    recipe = CompressionRecipe(stages=stages)
    for step in run_recipe(found, recipe, stage_data(), target, checkpoints=checkpoints):
        found = step[0]
        reports.append(step[1])
    return found, reports


def test_every_stage_is_reported_with_figures_before_and_after() -> None:
    found, (pruned, taught) = run(PruneConfig(keep=0.25), DISTILL)
    assert pruned.after == taught.before
    assert pruned.after.flops <= 0.25 * pruned.before.flops
    assert pruned.after.size_bytes < pruned.before.size_bytes
    assert pruned.after.peak_memory_bytes < pruned.before.peak_memory_bytes
    assert pruned.after.num_params == found.num_params
    assert taught.after.quality > taught.before.quality
    assert pruned.is_kept
    assert taught.is_kept
    assert pruned.to_dict()["stage"]["kind"] == "prune"


def test_a_stage_that_buys_nothing_of_the_target_is_taken_back_and_reported() -> None:
    found, (report,) = run(SparsifyConfig(sparsity=0.5))
    assert not report.is_kept
    assert "neither lowers flops" in report.reason
    assert report.after.num_zeros > 0
    assert sparsity_of(found.model) < 0.01
    zeros = CompressionTarget(cost="num_zeros", min_quality=0.0)
    found, (report,) = run(SparsifyConfig(sparsity=0.5), target=zeros)
    assert report.is_kept
    assert sparsity_of(found.model) == pytest.approx(0.5, abs=0.02)


def test_without_a_target_every_stage_is_kept_whatever_it_costs() -> None:
    found, (pruned, sparse) = run(PruneConfig(keep=0.2), SparsifyConfig(sparsity=0.9), target=None)
    assert pruned.is_kept
    assert sparse.is_kept
    assert sparse.after.quality < 0.9
    assert sparsity_of(found.model) == pytest.approx(0.9, abs=0.02)


def test_quality_may_fall_too_low_only_while_a_stage_follows_that_trains() -> None:
    harsh = PruneConfig(keep=0.2)
    _, (alone,) = run(harsh)
    assert not alone.is_kept
    assert "below 0.9" in alone.reason
    found, (pruned, taught) = run(harsh, DISTILL)
    assert pruned.after.quality < 0.9
    assert pruned.is_kept
    assert taught.after.quality > 0.9
    assert found.flops(SEQ_LEN) <= 0.2 * network().flops(SEQ_LEN)


def test_a_format_that_no_runtime_has_is_reported_as_simulated_and_buys_no_latency() -> None:
    bytes_ = CompressionTarget(cost="size_bytes", min_quality=0.9)
    found, (report,) = run(QuantizeConfig(format="int8-integer"), target=bytes_)
    assert report.is_kept
    assert report.to_dict()["is_simulated"]
    assert found.subnet.precision == "fp32"
    with found.running() as model:
        rows = stage_data().task.validation
        assert report.after.quality == evaluate(model, rows).value
    _, (int8,) = run(QuantizeConfig(format="int8"), target=bytes_)
    assert not int8.to_dict()["is_simulated"]


def test_a_latency_is_asked_of_whoever_tells_it() -> None:
    target = CompressionTarget(min_quality=0.0)
    recipe = CompressionRecipe(stages=(PruneConfig(keep=0.5),))
    ((_, report),) = run_recipe(
        network(), recipe, stage_data(), target, latency_of=lambda n: n.flops(SEQ_LEN) / 1e6
    )
    assert report.after.latency_ms == report.after.flops / 1e6
    with pytest.raises(ValueError, match="nothing tells it"):
        run(PruneConfig(keep=0.5), target=target)


def test_a_stopped_run_goes_on_after_the_last_stage_that_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (PruneConfig(keep=0.5), SparsifyConfig(sparsity=0.3), DISTILL)
    target = CompressionTarget(cost="num_params", min_quality=0.0)
    whole, reports = run(*stages, target=target)

    def killed(found: Compressed, config: StageConfig, data: StageData) -> Compressed:
        if isinstance(config, DistillConfig):
            raise KeyboardInterrupt
        return apply_stage(found, config, data)

    monkeypatch.setattr(pipeline, "apply_stage", killed)
    with pytest.raises(KeyboardInterrupt):
        run(*stages, target=target, checkpoints=tmp_path)
    applied: list[str] = []

    def noting(found: Compressed, config: StageConfig, data: StageData) -> Compressed:
        applied.append(config.kind)
        return apply_stage(found, config, data)

    monkeypatch.setattr(pipeline, "apply_stage", noting)
    again, repeated = run(*stages, target=target, checkpoints=tmp_path)
    assert applied == ["distill"]
    assert repeated == reports
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_pruning_in_rounds_keeps_more_than_pruning_at_once_and_learning_after() -> None:
    data = stage_data()
    rounds = apply_stage(
        network(), PruneAndDistillConfig(keep=0.2, epochs=6, learning_rate=3e-3), data
    )
    at_once = apply_stage(network(), PruneConfig(keep=0.2), data)
    assert rounds.flops(SEQ_LEN) <= 0.2 * network().flops(SEQ_LEN)
    quality = evaluate(rounds.model, data.task.validation).value
    assert quality > evaluate(at_once.model, data.task.validation).value
    assert quality > 0.9
