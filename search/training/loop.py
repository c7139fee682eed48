"""One training run, cut into slices: weights, AdamW's moments and the step reached, no more.

Everything random in step n follows from (seed, n): a run that was killed and resumed takes the
same batches, subnets and dropout masks as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from search.errors import TrainingDiverged
from search.model.transformer import ElasticTransformer
from search.training.distributed import ALONE, Group
from search.training.optimizer import (
    OptimizerSettings,
    Schedule,
    WeightAverage,
    adamw,
    trained_parameters,
)
from search.training.precision import autocast, products_in

LossesAt = Callable[[int], Iterable[Tensor]]
"""The losses of a step, each computed when asked for and its graph freed before the next, so that
several subnets a step need the memory of one. Their sum is what the step minimises."""


class TrainingRun:
    """A model, its optimizer and the number of steps taken."""

    def __init__(
        self,
        model: ElasticTransformer,
        schedule: Schedule,
        *,
        seed: int,
        precision: str = "fp32",
        settings: OptimizerSettings | None = None,
        group: Group = ALONE,
        beside: nn.Module | None = None,
    ) -> None:
        """
        Args:
            settings: None: those of the model's kind.
            beside: trained along with the model, and no part of it: what only its loss needs.
        """
        self.model = model
        self.precision = precision
        self.schedule = schedule
        self.seed = seed
        self.step = 0
        self._settings = settings or OptimizerSettings.for_shape(model.shape)
        self._group = group
        self._beside = {f"beside.{n}": p for n, p in (beside or nn.Module()).named_parameters()}
        self._named = trained_parameters(model) | self._beside
        self._device = next(model.parameters()).device
        self._optimizer = adamw(self._named, self._settings)
        # fp16 has no exponents for small gradients: the loss is scaled up, the gradients down.
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=precision == "fp16")
        decay = self._settings.average_decay
        self._average = WeightAverage(self._named, decay) if decay else None

    @property
    def is_finished(self) -> bool:
        return self.step >= self.schedule.total_steps

    def advance(self, losses_at: LossesAt, should_stop: Callable[[], bool]) -> float:
        """Steps until the schedule ends or `should_stop` says so, at least one.

        Returns:
            The mean loss of the steps taken; NaN when the run was finished already.

        Raises:
            TrainingDiverged: a loss or a gradient is not finite; weights are as before the step.
        """
        self.model.train()
        losses: list[float] = []
        while not self.is_finished:
            with products_in(self.precision):
                losses.append(self._take_step(losses_at))
            if self._group.is_agreed(should_stop(), self._device):
                break
        return sum(losses) / len(losses) if losses else float("nan")

    def _take_step(self, losses_at: LossesAt) -> float:
        # Processes drop different units of their rows, else they would act as one.
        torch.manual_seed(
            (self.seed * 1_000_003 + self.step) * self._group.size + self._group.rank
        )
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for loss in self._autocast(losses_at(self.step)):
            torch.autograd.backward(self._scaler.scale(loss))
            total += float(loss.detach())
        total = self._group.sum(total, self._device)
        if not math.isfinite(total):
            raise TrainingDiverged(self.step, "loss")
        self._update()
        self.step += 1
        if self._average is not None:
            self._average.update(self.step)
        return total

    def _update(self) -> None:
        parameters = list(self._named.values())
        self._group.sum_gradients_(parameters)
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self._settings.max_grad_norm)
        # A scaled loss may overflow: the scaler then leaves the step out and scales less.
        if not self._scaler.is_enabled() and not math.isfinite(float(norm)):
            raise TrainingDiverged(self.step, "gradient")
        for group in self._optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate_at(self.step)
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _autocast(self, losses: Iterable[Tensor]) -> Iterator[Tensor]:
        """Each loss computed in the run's precision, and handed out beyond it."""
        remaining = iter(losses)
        while True:
            with autocast(self.precision, self._device):
                loss = next(remaining, None)
            if loss is None:
                return
            yield loss

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model has its averaged weights meanwhile, if the run keeps an average."""
        if self._average is None:
            yield
            return
        self._average.swap()
        try:
            yield
        finally:
            self._average.swap()

    def save(self, path: Path) -> None:
        """A safetensors file with the weights, their average, the moments and the step."""
        tensors = {f"weight/{n}": p.detach() for n, p in self.model.named_parameters()}
        tensors |= {f"beside/{n}": p.detach() for n, p in self._beside.items()}
        for name, parameter in self._named.items():
            for kind, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"{kind}/{name}"] = value
        if self._average is not None:
            tensors |= {f"average/{n}": value for n, value in self._average.values.items()}
        scaler = self._scaler.state_dict()
        for kind in _SCALER_STATE & scaler.keys():
            tensors[f"scaler/{kind}"] = torch.tensor(scaler[kind], dtype=torch.float64)
        save_file(tensors, path, metadata={"step": str(self.step)})

    def load(self, path: Path) -> None:
        """Go on from a file that `save` wrote for a run of the same model."""
        load_weights_(self.model, path)
        scaler = self._scaler.state_dict()
        with safe_open(path, framework="pt", device=str(self._device)) as stored:
            self.step = int(stored.metadata()["step"])
            for key in stored.keys():  # noqa: SIM118, it is no dict
                kind, name = key.split("/", 1)
                if kind == "weight":
                    continue
                tensor = stored.get_tensor(key)
                if kind == "beside":
                    self._beside[name].data.copy_(tensor)
                elif kind == "scaler":
                    scaler[name] = type(scaler[name])(tensor)
                elif kind == "average":
                    assert self._average is not None, "the run kept an average"
                    self._average.values[name].copy_(tensor)
                else:
                    self._optimizer.state[self._named[name]][kind] = tensor
        self._scaler.load_state_dict(scaler)


_SCALER_STATE = frozenset({"scale", "_growth_tracker"})


def save_weights(model: ElasticTransformer, path: Path) -> None:
    save_file({f"weight/{n}": p.detach() for n, p in model.named_parameters()}, path)


def load_weights_(model: ElasticTransformer, path: Path) -> None:
    """Weights from a file of `save_weights` or of a run's checkpoint."""
    with safe_open(path, framework="pt") as stored, torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(stored.get_tensor(f"weight/{name}"))
