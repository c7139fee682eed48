"""Two real processes over gloo, started by torchrun, against one with the joint batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from search.training.distributed import ALONE, joined_group, training_device
from search.training.loop import load_weights_
from search.training.order import BatchOrder
from tests.search.small import network, task
from tests.search.training.train_together import begun

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what two processes trained."""
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.search.training.train_together", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def facts(folder: Path, rank: int) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / f"facts-{rank}.json").read_text())
    return loaded


def test_two_processes_train_as_one_with_the_joint_batch(together: Path) -> None:
    run, losses_at = begun()
    loss = run.advance(losses_at, should_stop=lambda: False)
    trained = network()
    load_weights_(trained, together / "together.safetensors")
    for name, expected in run.model.named_parameters():
        found = trained.get_parameter(name)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for rank in (0, 1):
        assert facts(together, rank)["size"] == 2
        assert facts(together, rank)["loss"] == pytest.approx(loss, rel=1e-5)


def test_all_stop_at_the_step_at_which_one_wishes_to(together: Path) -> None:
    assert [facts(together, rank)["stopped_at"] for rank in (0, 1)] == [3, 3]


def test_a_loss_that_is_no_number_in_one_process_stops_all(together: Path) -> None:
    for rank in (0, 1):
        assert "training step 1" in facts(together, rank)["diverged"]


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_group(training_device()) as group:
        assert group == ALONE
        assert group.is_first
    assert group.sum(2.5, torch.device("cpu")) == 2.5


@pytest.mark.parametrize(("accumulation", "size"), [(1, 1), (3, 1), (1, 2), (2, 3)])
def test_parts_of_all_processes_make_up_the_batch(accumulation: int, size: int) -> None:
    rows = task(33)
    whole = BatchOrder(rows, 16, 0)
    for step in range(whole.steps_per_epoch):
        parts = [
            part
            for rank in range(size)
            for part in BatchOrder(
                rows, 16, 0, accumulation=accumulation, group=type(ALONE)(rank, size)
            ).parts(step)
        ]
        places = sorted(place for part in parts for place in part.places)
        assert places == sorted(whole.places_at(step))
        assert sum(part.share for part in parts) == pytest.approx(1.0)
        assert all(len(part.places) == len(part.labels) for part in parts)
