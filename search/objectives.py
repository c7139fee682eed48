"""What a search weighs against each other: names, directions, and what is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """One figure of a network; units stand in the name.

    `is_learnt` means that only an evaluation tells it. All others are known of any network at no
    cost: counted from its sizes, or predicted.
    """

    name: str
    direction: Direction = "minimize"
    is_learnt: bool = False

    @property
    def sign(self) -> float:
        """Times the value: a loss, better low."""
        return 1.0 if self.direction == "minimize" else -1.0


QUALITY = Objective(name="quality", direction="maximize", is_learnt=True)
LATENCY = Objective(name="latency_ms")
FLOPS = Objective(name="flops")
SIZE = Objective(name="size_bytes")
PARAMS = Objective(name="num_params")
PEAK_MEMORY = Objective(name="peak_memory_bytes")
ENERGY = Objective(name="energy_mj")


def to_losses(objectives: Sequence[Objective], values: npt.ArrayLike) -> Floats:
    """Values (networks, objectives) turned so that low is better in every column."""
    signs = np.array([objective.sign for objective in objectives])
    losses: Floats = np.asarray(values, dtype=np.float64).reshape(-1, len(objectives)) * signs
    return losses
