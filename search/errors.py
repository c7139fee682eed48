"""The root of every error that Snugnet raises on purpose."""

from __future__ import annotations

from typing import ClassVar


class SnugnetError(Exception):
    """Root of the tree: `code` is stable and machine-readable, the message is for a person."""

    code: ClassVar[str] = "error"


class InvalidInput(SnugnetError):
    """A user's input is wrong: `field` names the place, `reason` says what would be right."""

    code = "invalid_input"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[type[InvalidInput], tuple[str, str]]:
        return (type(self), (self.field, self.reason))


class BudgetUnreachable(SnugnetError):
    """No network of the space keeps the budget; `closest_ms` is the nearest that one can get."""

    code = "budget_unreachable"

    def __init__(self, field: str, budget_ms: float, closest_ms: float) -> None:
        self.reason = (
            f"a budget of {budget_ms:.3g} ms cannot be reached; "
            f"the closest reachable latency is {closest_ms:.3g} ms"
        )
        super().__init__(f"{field}: {self.reason}")
        self.field = field
        self.budget_ms = budget_ms
        self.closest_ms = closest_ms


class TrainingDiverged(SnugnetError):
    """A loss or its gradient became NaN or infinite at `step`; no weight was changed by it."""

    code = "training_diverged"

    def __init__(self, step: int, what: str) -> None:
        super().__init__(
            f"the {what} became NaN or infinite at training step {step}; "
            "the last checkpoint is good: try a lower learning rate"
        )
        self.step = step
        self.what = what

    def __reduce__(self) -> tuple[type[TrainingDiverged], tuple[int, str]]:
        return (type(self), (self.step, self.what))
