from __future__ import annotations

from pathlib import Path

import pytest
import torch

from search.model.transformer import ElasticTransformer
from search.training.loop import LossesAt, TrainingRun, load_weights_, save_weights
from search.training.losses import DistillationLoss
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.sampling import Sampling, SubnetSampler
from search.training.supernet import supernet_losses
from search.training.teacher import TeacherOutputs
from tests.search.small import SHAPE, SPACE, network, task

TOTAL_STEPS = 9


def begun() -> tuple[TrainingRun, LossesAt]:
    """A supernet's training, dropout and random subnets included."""
    rows = task(64)
    model = network(1).train()
    target_of = TeacherOutputs(network(), rows, tuple(range(SHAPE.num_layers)))
    run = TrainingRun(model, Schedule(learning_rate=1e-2, total_steps=TOTAL_STEPS), seed=3)
    sampler = SubnetSampler(SPACE, Sampling(), total_steps=TOTAL_STEPS, seed=3)
    loss = DistillationLoss.for_shape(SHAPE)
    return run, supernet_losses(model, BatchOrder(rows, 16, 3), sampler, target_of, loss)


def weights(model: ElasticTransformer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("killed_at", [1, 4, 8])
def test_a_resumed_run_is_equal_to_the_bit(tmp_path: Path, killed_at: int) -> None:
    whole, losses_at = begun()
    whole.advance(losses_at, should_stop=lambda: False)

    first, losses_at = begun()
    first.advance(losses_at, should_stop=lambda: first.step == killed_at)
    first.save(tmp_path / "checkpoint.safetensors")
    torch.manual_seed(12345)  # another process has another state
    resumed, losses_at = begun()
    resumed.load(tmp_path / "checkpoint.safetensors")
    assert resumed.step == killed_at
    resumed.advance(losses_at, should_stop=lambda: False)

    assert resumed.is_finished
    expected = weights(whole.model)
    for name, value in weights(resumed.model).items():
        assert torch.equal(value, expected[name]), name


def test_a_finished_run_takes_no_further_step() -> None:
    run, losses_at = begun()
    run.advance(losses_at, should_stop=lambda: False)
    after = weights(run.model)
    run.advance(losses_at, should_stop=lambda: False)
    assert run.step == TOTAL_STEPS
    assert all(torch.equal(value, after[name]) for name, value in weights(run.model).items())


def test_the_learning_rate_rises_and_falls() -> None:
    schedule = Schedule(learning_rate=1.0, total_steps=100)
    rates = [schedule.learning_rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[100] == 0.0
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_weights_survive_a_file(tmp_path: Path) -> None:
    model, other = network(0), network(1)
    save_weights(model, tmp_path / "weights.safetensors")
    load_weights_(other, tmp_path / "weights.safetensors")
    expected = weights(model)
    assert all(torch.equal(value, expected[name]) for name, value in weights(other).items())
