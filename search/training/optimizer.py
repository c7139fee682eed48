"""AdamW as each kind of model is trained with it, and how its learning rate runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from search.model.transformer import ElasticTransformer
from search.shape import ModelShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Linear warm-up over the first tenth, then linear decay to zero at `total_steps`.

    Attributes:
        restart_at: step from which another warm-up and decay begin; 0 for one run alone. The
            second stage of a training is a training of its own (DynaBERT, arXiv 2004.04037).
    """

    learning_rate: float
    total_steps: int
    restart_at: int = 0

    def learning_rate_at(self, step: int) -> float:
        start, end = 0, self.total_steps
        if self.restart_at:
            start, end = (0, self.restart_at) if step < self.restart_at else (self.restart_at, end)
        length = end - start
        warmup = max(1, length // 10)
        rising = (step - start + 1) / warmup
        falling = (end - step) / max(1, length - warmup)
        return self.learning_rate * max(0.0, min(rising, falling, 1.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSettings:
    """Of AdamW (arXiv 1711.05101). Norms, biases and embeddings are never decayed.

    Attributes:
        average_decay: of the exponential moving average of the weights, which replaces them in
            the end; 0 keeps none.
    """

    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    max_grad_norm: float = 1.0
    average_decay: float = 0.0

    @classmethod
    def for_shape(cls, shape: ModelShape) -> Self:
        """As BERT is fine-tuned (arXiv 1810.04805, A.3), as GPT-3 (arXiv 2005.14165, appendix B)
        and DeiT (arXiv 2012.12877, table 9) are trained."""
        if shape.is_causal:
            return cls(weight_decay=0.1, betas=(0.9, 0.95))
        return cls(weight_decay=0.05) if shape.reads_images else cls()


def trained_parameters(model: ElasticTransformer) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def adamw(parameters: dict[str, nn.Parameter], settings: OptimizerSettings) -> torch.optim.AdamW:
    """Its learning rate is 0 until a step sets it."""
    decayed = [p for name, p in parameters.items() if is_decayed(name, p)]
    others = [p for name, p in parameters.items() if not is_decayed(name, p)]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Matrices are; a table's rows would shrink in every step that does not use them."""
    is_table = name.startswith("embeddings.") and name != "embeddings.patch.weight"
    return parameter.dim() > 1 and not is_table


class WeightAverage:
    """Exponential moving average of the weights (Polyak and Juditsky, 1992).

    Early steps count less: after n steps the decay is at most (1 + n) / (10 + n).
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self._decay = decay
        self._parameters = parameters
        self.values = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in self._parameters.items():
            self.values[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Average and weights change places; once more and all is as before."""
        for name, parameter in self._parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(kept)
