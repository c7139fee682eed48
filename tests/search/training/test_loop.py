from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from search.errors import TrainingDiverged
from search.model.transformer import ElasticTransformer
from search.training.loop import LossesAt, TrainingRun, load_weights_, save_weights
from search.training.losses import DistillationLoss
from search.training.optimizer import OptimizerSettings, Schedule
from search.training.order import BatchOrder
from search.training.sampling import Sampling, SubnetSampler
from search.training.supernet import supernet_losses
from search.training.teacher import TeacherOutputs
from tests.search.small import SHAPE, SPACE, network, task

TOTAL_STEPS = 9


def begun(
    *,
    accumulation: int = 1,
    average_decay: float = 0.0,
    width_first: float = 0.0,
    precision: str = "fp32",
) -> tuple[TrainingRun, LossesAt]:
    """A supernet's training, dropout and random subnets included."""
    rows = task(64)
    model = network(1).train()
    target_of = TeacherOutputs(network(), rows, tuple(range(SHAPE.num_layers)))
    sampling = Sampling(width_first=width_first)
    sampler = SubnetSampler(SPACE, sampling, total_steps=TOTAL_STEPS, seed=3)
    run = TrainingRun(
        model,
        Schedule(learning_rate=1e-2, total_steps=TOTAL_STEPS, restart_at=sampler.num_width_steps),
        seed=3,
        precision=precision,
        settings=OptimizerSettings(average_decay=average_decay),
    )
    order = BatchOrder(rows, 16, 3, accumulation=accumulation)
    loss = DistillationLoss.for_shape(SHAPE)
    return run, supernet_losses(model, order, sampler, target_of, loss)


def weights(model: ElasticTransformer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def never() -> bool:
    return False


@pytest.mark.parametrize(
    ("killed_at", "options"),
    [
        (1, {}),
        (8, {}),
        (4, {"accumulation": 3}),
        (5, {"average_decay": 0.9}),
        (3, {"width_first": 0.5}),
        (6, {"width_first": 0.5, "accumulation": 2, "average_decay": 0.9}),
        (4, {"precision": "bf16"}),
        (4, {"precision": "fp16"}),
    ],
)
def test_a_resumed_run_is_equal_to_the_bit(
    tmp_path: Path, killed_at: int, options: dict[str, Any]
) -> None:
    whole, losses_at = begun(**options)
    whole.advance(losses_at, should_stop=never)

    first, losses_at = begun(**options)
    first.advance(losses_at, should_stop=lambda: first.step == killed_at)
    first.save(tmp_path / "checkpoint.safetensors")
    torch.manual_seed(12345)  # another process has another state
    resumed, losses_at = begun(**options)
    resumed.load(tmp_path / "checkpoint.safetensors")
    assert resumed.step == killed_at
    resumed.advance(losses_at, should_stop=never)

    assert resumed.is_finished
    with whole.averaged(), resumed.averaged():
        expected = weights(whole.model)
        for name, value in weights(resumed.model).items():
            assert torch.equal(value, expected[name]), name


def test_what_is_trained_beside_the_model_is_no_part_of_it_and_survives_too(
    tmp_path: Path,
) -> None:
    rows, beside = task(64), torch.nn.Linear(2, 2, bias=False)
    started = beside.weight.detach().clone()

    def begun_beside(beside: torch.nn.Linear) -> tuple[TrainingRun, LossesAt]:
        model = network(1).train()
        order = BatchOrder(rows, 16, 3)

        def losses_at(step: int) -> Iterator[torch.Tensor]:
            _, batch, labels = order[step]
            yield torch.nn.functional.cross_entropy(beside(model(batch).logits), labels)

        schedule = Schedule(learning_rate=1e-2, total_steps=6)
        return TrainingRun(model, schedule, seed=3, beside=beside), losses_at

    run, losses_at = begun_beside(beside)
    run.advance(losses_at, lambda: run.step == 3)
    run.save(tmp_path / "run.safetensors")
    run.advance(losses_at, never)
    assert not torch.equal(beside.weight, started)
    assert all("beside" not in name for name, _ in run.model.named_parameters())
    other = torch.nn.Linear(2, 2, bias=False)
    resumed, losses_at = begun_beside(other)
    resumed.load(tmp_path / "run.safetensors")
    resumed.advance(losses_at, never)
    assert torch.equal(other.weight, beside.weight)
    for name, weight in weights(resumed.model).items():
        assert torch.equal(weight, weights(run.model)[name])


def test_a_finished_run_takes_no_further_step() -> None:
    run, losses_at = begun()
    run.advance(losses_at, should_stop=never)
    after = weights(run.model)
    run.advance(losses_at, should_stop=never)
    assert run.step == TOTAL_STEPS
    assert all(torch.equal(value, after[name]) for name, value in weights(run.model).items())


def test_a_batch_computed_in_parts_teaches_the_same() -> None:
    """Without dropout, which draws anew for every part."""
    seen = []
    for accumulation in (1, 3):
        run, losses_at = begun(accumulation=accumulation)
        run.model.dropout = 0.0
        loss = run.advance(losses_at, should_stop=lambda: True)
        seen.append((loss, {n: p.grad for n, p in run.model.named_parameters()}))
    assert seen[0][0] == pytest.approx(seen[1][0], rel=1e-5)
    for name, gradient in seen[0][1].items():
        torch.testing.assert_close(gradient, seen[1][1][name], atol=1e-6, rtol=1e-4)


def test_averaged_weights_take_the_models_place_for_a_while() -> None:
    run, losses_at = begun(average_decay=0.5)
    seen = [weights(run.model)]
    run.advance(losses_at, should_stop=lambda: bool(seen.append(weights(run.model))))  # type: ignore[func-returns-value]
    name = "layers.0.ffn.up.weight"
    expected = seen[0][name]
    for step, values in enumerate(seen[1:], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * values[name]
    with run.averaged():
        torch.testing.assert_close(weights(run.model)[name], expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(weights(run.model)[name], seen[-1][name])


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_it_reaches_the_weights(
    tmp_path: Path, broken: float
) -> None:
    run, losses_at = begun()

    def breaking(step: int) -> Iterator[Tensor]:
        for loss in losses_at(step):
            yield loss * broken if step == 5 else loss

    run.advance(breaking, should_stop=lambda: run.step == 4)
    good = tmp_path / "checkpoint.safetensors"
    run.save(good)
    before: dict[str, Tensor] = {}

    def remember() -> bool:
        before.update(weights(run.model))
        return False

    with pytest.raises(TrainingDiverged, match="loss became NaN or infinite at training step 5"):
        run.advance(breaking, should_stop=remember)
    assert run.step == 5
    assert all(torch.equal(value, before[name]) for name, value in weights(run.model).items())
    with safe_open(good, framework="pt") as stored:
        assert stored.metadata()["step"] == "4"
        assert all(stored.get_tensor(key).isfinite().all() for key in stored.keys())  # noqa: SIM118


def test_a_gradient_that_is_no_number_stops_it_too() -> None:
    run, _ = begun()
    bias = run.model.get_parameter("head.bias")

    def losses_at(step: int) -> Iterable[Tensor]:
        del step
        # The square root of 0 is 0, its slope infinite.
        return [(bias * 0).square().sum().sqrt()]

    with pytest.raises(TrainingDiverged, match=r"gradient .* step 0") as caught:
        run.advance(losses_at, should_stop=never)
    assert caught.value.step == 0


def test_an_overflow_of_half_precision_costs_a_step_and_halves_the_scale() -> None:
    run, losses_at = begun(precision="fp16")
    before = weights(run.model)

    def overflowing(step: int) -> Iterator[Tensor]:
        for loss in losses_at(step):
            yield loss * 1e36  # times the scale it is no number, by itself it is one

    run.advance(overflowing, should_stop=lambda: run.step == 1)
    assert all(torch.equal(value, before[name]) for name, value in weights(run.model).items())
    run.advance(losses_at, should_stop=lambda: run.step == 2)
    assert any(not torch.equal(v, before[name]) for name, v in weights(run.model).items())


def test_gradients_are_clipped_to_their_norm() -> None:
    """AdamW takes no notice of a gradient's size, but of what it was clipped to within a run."""
    seen = []
    for norm in (1e-3, 1e3):
        run, losses_at = begun()
        run = TrainingRun(
            run.model,
            Schedule(learning_rate=0.0, total_steps=2),
            seed=3,
            settings=OptimizerSettings(max_grad_norm=norm),
        )
        run.advance(losses_at, should_stop=never)
        gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
        seen.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]))))
    assert seen[0] == pytest.approx(1e-3, rel=1e-3)
    assert 1e-3 < seen[1] < 1e3


def test_weights_survive_a_file(tmp_path: Path) -> None:
    model, other = network(0), network(1)
    save_weights(model, tmp_path / "weights.safetensors")
    load_weights_(other, tmp_path / "weights.safetensors")
    expected = weights(model)
    assert all(torch.equal(value, expected[name]) for name, value in weights(other).items())
