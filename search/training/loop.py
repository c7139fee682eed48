"""One training run, cut into slices: weights, AdamW's moments and the step reached, no more.

Everything random in step n follows from (seed, n): a run that was killed and resumed takes the
same batches, subnets and dropout masks as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from search.model.transformer import ElasticTransformer
from search.training.precision import autocast


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Linear warm-up over the first tenth, then linear decay to zero at `total_steps`."""

    learning_rate: float
    total_steps: int
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0

    def learning_rate_at(self, step: int) -> float:
        warmup = max(1, self.total_steps // 10)
        rising = (step + 1) / warmup
        falling = (self.total_steps - step) / max(1, self.total_steps - warmup)
        return self.learning_rate * max(0.0, min(rising, falling, 1.0))


class TrainingRun:
    """A model, its optimizer and the number of steps taken."""

    def __init__(
        self, model: ElasticTransformer, schedule: Schedule, *, seed: int, precision: str = "fp32"
    ) -> None:
        self.model = model
        self.precision = precision
        self.schedule = schedule
        self.seed = seed
        self.step = 0
        self._named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(
            self._named.values(), lr=0.0, weight_decay=schedule.weight_decay, fused=True
        )

    @property
    def is_finished(self) -> bool:
        return self.step >= self.schedule.total_steps

    def advance(
        self, losses_at: Callable[[int], Iterable[Tensor]], should_stop: Callable[[], bool]
    ) -> float:
        """Steps until the schedule ends or `should_stop` says so, at least one.

        Args:
            losses_at: the losses of a step, each computed when asked for and its graph freed
                before the next, so that several subnets a step need the memory of one.

        Returns:
            The mean loss of the steps taken; NaN when the run was finished already.
        """
        self.model.train()
        losses: list[float] = []
        while not self.is_finished:
            torch.manual_seed(self.seed * 1_000_003 + self.step)
            self._optimizer.zero_grad(set_to_none=True)
            total = 0.0
            for loss in self._autocast(losses_at(self.step)):
                torch.autograd.backward(loss)
                total += float(loss.detach())
            torch.nn.utils.clip_grad_norm_(self._named.values(), self.schedule.max_grad_norm)
            for group in self._optimizer.param_groups:
                group["lr"] = self.schedule.learning_rate_at(self.step)
            self._optimizer.step()
            self.step += 1
            losses.append(total)
            if should_stop():
                break
        return sum(losses) / len(losses) if losses else float("nan")

    def _autocast(self, losses: Iterable[Tensor]) -> Iterator[Tensor]:
        """Each loss computed in the run's precision, and handed out beyond it."""
        remaining = iter(losses)
        while True:
            with autocast(self.precision):
                loss = next(remaining, None)
            if loss is None:
                return
            yield loss

    def save(self, path: Path) -> None:
        """A safetensors file with the weights, the moments and the step."""
        tensors = {f"weight/{n}": p.detach() for n, p in self.model.named_parameters()}
        for name, parameter in self._named.items():
            for kind, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"{kind}/{name}"] = value
        save_file(tensors, path, metadata={"step": str(self.step)})

    def load(self, path: Path) -> None:
        """Go on from a file that `save` wrote for a run of the same model."""
        parameters = dict(self.model.named_parameters())
        with safe_open(path, framework="pt") as stored:
            self.step = int(stored.metadata()["step"])
            for key in stored.keys():  # noqa: SIM118, it is no dict
                kind, name = key.split("/", 1)
                tensor = stored.get_tensor(key)
                if kind == "weight":
                    with torch.no_grad():
                        parameters[name].copy_(tensor)
                else:
                    self._optimizer.state[parameters[name]][kind] = tensor


def save_weights(model: ElasticTransformer, path: Path) -> None:
    save_file({f"weight/{n}": p.detach() for n, p in model.named_parameters()}, path)


def load_weights_(model: ElasticTransformer, path: Path) -> None:
    """Weights from a file of `save_weights` or of a run's checkpoint."""
    with safe_open(path, framework="pt") as stored, torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(stored.get_tensor(f"weight/{name}"))
