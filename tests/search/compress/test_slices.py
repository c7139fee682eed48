"""A stage's training that is cut into slices ends as one that is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from search.compress.configs import (
    DistillConfig,
    PruneAndDistillConfig,
    QuantizeConfig,
    SparsifyConfig,
)
from search.compress.network import Compressed, Memory
from search.compress.recipe import StageConfig
from search.compress.stages import apply_stage
from search.training.loop import LossesAt, TrainingRun
from tests.search.compress.data import network, stage_data

RATE = 3e-3


class Cut(Exception):
    """The slice has ended."""


class Slices:
    """Every run goes on from its file for a few steps more, until the slice is over."""

    def __init__(self, folder: Path, num_steps: int) -> None:
        self._folder = folder
        self._left = num_steps
        self._place = 0

    def __call__(self, run: TrainingRun, losses_at: LossesAt, memory: Memory | None) -> None:
        path = self._folder / f"run-{self._place}.safetensors"
        memory_path = path.with_suffix(".memory")
        self._place += 1
        if path.exists():
            run.load(path)
            if memory is not None:
                memory.restore(load_file(memory_path))
        if run.is_finished:
            return
        run.advance(losses_at, should_stop=self._is_over)
        run.save(path)
        if memory is not None:
            save_file(memory.tensors(), memory_path)
        if not run.is_finished:
            raise Cut

    def _is_over(self) -> bool:
        self._left -= 1
        return self._left <= 0


def in_slices(config: StageConfig, folder: Path, num_steps: int) -> tuple[Compressed, int]:
    """The stage done from its beginning again and again, and how often."""
    for tries in range(1, 200):
        data = replace(stage_data(), advance=Slices(folder, num_steps))
        try:
            return apply_stage(network(), config, data), tries
        except Cut:
            continue
    raise AssertionError("it never ends")


@pytest.mark.parametrize(
    "config",
    [
        DistillConfig(epochs=1, learning_rate=RATE),
        PruneAndDistillConfig(keep=0.4, epochs=1.5, learning_rate=RATE),
        SparsifyConfig(sparsity=0.6, epochs=1, learning_rate=RATE),
        SparsifyConfig(sparsity=0.6, score="movement", epochs=1, learning_rate=RATE),
        QuantizeConfig(format="int8", aware_epochs=1, learning_rate=RATE),
        QuantizeConfig(format="ternary", aware_epochs=1, learning_rate=RATE),
    ],
    ids=lambda config: f"{config.kind}-{getattr(config, 'score', '')}",
)
def test_slices_give_the_same_weights_and_masks_as_one_run(
    config: StageConfig, tmp_path: Path
) -> None:
    whole = apply_stage(network(), config, stage_data())
    cut, tries = in_slices(config, tmp_path, num_steps=7)
    assert tries > 3
    assert cut.subnet == whole.subnet
    assert cut.masks.keys() == whole.masks.keys()
    for name, mask in whole.masks.items():
        assert torch.equal(cut.masks[name], mask)
    for one, other in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        assert torch.equal(one, other)
