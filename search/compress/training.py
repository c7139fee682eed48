"""Distillation as a stage, and what other stages need of it: steps that keep zeros at zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from search.compress.configs import DistillConfig
from search.compress.distill import Distillation
from search.compress.network import Compressed, Memory, StageData, apply_masks_, copied
from search.training.loop import LossesAt
from search.training.losses import DistillationLoss

BeforeStep = Callable[[int], None]


def distill(network: Compressed, config: DistillConfig, data: StageData) -> Compressed:
    """The same network after learning from the teacher; what is masked stays zero."""
    weights = {name: getattr(config, name) for name in ("soft", "hard", "hidden", "relations")} | {
        "temperature": config.temperature
    }
    return taught(
        network,
        data,
        num_steps=data.num_steps(config.epochs),
        learning_rate=config.learning_rate,
        weights=weights,
    )


def taught(
    network: Compressed,
    data: StageData,
    *,
    num_steps: int,
    learning_rate: float,
    weights: Mapping[str, float] | None = None,
    before_step: BeforeStep | None = None,
    memory: Memory | None = None,
) -> Compressed:
    """A copy of the network after `num_steps` of distillation.

    Args:
        weights: of the parts of the loss; see `DistillationLoss`.
        before_step: called with the number of each step; without it the masks are applied. It may
            change the model in place, which it is given by `network` being a copy already.
        memory: what `before_step` keeps between steps, if it does.
    """
    network = network if before_step else replace(network, model=copied(network.model))
    model, masks = network.model, network.masks
    device = next(model.parameters()).device
    distillation = Distillation(
        model,
        network.subnet,
        data.task,
        total_steps=num_steps,
        learning_rate=learning_rate,
        seed=data.seed,
        precision="fp32",
        loss=DistillationLoss.for_shape(model.shape, **(weights or {})),
    )
    keep_zeros = before_step or (lambda _: apply_masks_(model, masks))
    data.advance(distillation.run, _preceded(distillation.losses_at, keep_zeros), memory)
    keep_zeros(num_steps)
    model.to(device).eval()
    return network


def _preceded(losses_at: LossesAt, before_step: BeforeStep) -> LossesAt:
    def losses(step: int) -> Iterator[Tensor]:
        before_step(step)
        yield from losses_at(step)

    return losses
