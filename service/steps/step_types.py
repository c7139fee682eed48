"""The values of the step protocol: what a step is given, and what it hands back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.errors import SnugnetError

MAX_ATTEMPTS = 4
"""Claims of one step (or measurement job); after the last one its job fails."""


class LeaseLost(SnugnetError):
    """Somebody else holds this work by now, or it has ended: the caller must let go of it."""

    code = "lease_lost"


class StepFailed(SnugnetError):
    """Trying again would not help: the job fails with this code, message and data."""

    def __init__(self, code: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # the one error whose code its raiser chooses
        self.message = message
        self.data = dict(data or {})

    def __reduce__(self) -> tuple[type[StepFailed], tuple[str, str, dict[str, Any]]]:
        return (type(self), (self.code, self.message, self.data))


@dataclass(frozen=True, kw_only=True, slots=True)
class NewStep:
    kind: str
    input: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewMeasurement:
    """Work for an agent; `then` runs with its id as `measurement_job_id` in the input."""

    device_id: str
    spec: dict[str, Any]
    then: NewStep | None = None
    purposes: dict[str, str] = field(default_factory=dict)
    """What each network is measured for, by its key; where absent, to learn the device."""

    agent_timeout_s: float | None = None
    """How long it may wait for an agent that is offline; None for ever."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewArtifact:
    name: str
    sha256: str
    size_bytes: int
    media_type: str
    target_index: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """How a step ends: with `next` (the job goes on) or `result` (it is done).

    `parts` run side by side, on as many workers as are free, before `next` does. A part itself
    ends with neither: what it did is found in the database.
    """

    output: dict[str, Any] = field(default_factory=dict)
    next: NewStep | NewMeasurement | None = None
    artifacts: Sequence[NewArtifact] = ()
    parts: Sequence[NewStep] = ()
    result: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.next is not None and self.result is not None:
            raise ValueError("a step ends with either `next` or `result`")
        if self.parts and not isinstance(self.next, NewStep):
            raise ValueError("the parts of a step need a next one that they join")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepLease:
    """A claimed step. It may be written as long as the row still carries this token."""

    step_id: str
    job_id: str
    kind: str
    input: dict[str, Any]
    token: int
    attempts: int
    owner: str
