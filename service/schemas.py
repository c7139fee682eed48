"""What travels over HTTP beside the job that is asked for (`job_spec`): mostly answers."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from service.plain_json import fault_in
from service.validation import WrongField, dotted

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./\-]{0,62}")
MAX_LABELS = 16
LabelKey = Annotated[str, StringConstraints(pattern=rf"^{LABEL_KEY.pattern}$")]
LabelValue = Annotated[str, StringConstraints(max_length=200)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=MAX_LABELS)]

MAX_GENERATIONS = 1000


class Strict(BaseModel):
    """A part of a request: an unknown key is an error, since a typo would be silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="after")
    def _is_plain(self) -> Self:
        # Parts that are models themselves have looked at their own.
        if fault := fault_in({name: getattr(self, name) for name in type(self).model_fields}):
            raise WrongField(dotted(fault[0]), fault[1])
        return self


class Answer(BaseModel):
    """A part of an answer: a newer server may add keys that an older client does not know."""

    model_config = ConfigDict(extra="ignore", frozen=True, from_attributes=True)


TaskName = Literal[
    "text-classification",
    "pair-classification",
    "token-classification",
    "sentence-embedding",
    "language-modelling",
    "image-classification",
]


class InputColumns(Strict):
    """What the columns (or keys, or arrays) of a file are called that a model reads; None: as is
    usual."""

    text: Name | None = None
    """Column of the texts, `text`; in token classification of the lists of words, `tokens`, where
    they have labels."""

    text_pair: Name | None = None
    """Column of the second texts, `text_pair`, in pair classification."""

    image: Name | None = None
    """Array of the images, `images`, in image classification."""

    @property
    def columns(self) -> dict[str, str | None]:
        return {role: getattr(self, role) for role in InputColumns.model_fields}


class DataColumns(InputColumns):
    """The same of a file with labels."""

    label: Name | None = None
    """Column of the labels, `label`; in token classification `tags`, beside images `labels`."""

    @property
    def columns(self) -> dict[str, str | None]:
        return {role: getattr(self, role) for role in DataColumns.model_fields}


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"
    SUCCEEDED = "succeeded"
    UNKNOWN = "unknown"
    """No job is in it: what a client reads where a newer server has a state of another name."""

    @property
    def is_final(self) -> bool:
        return self in (JobState.CANCELLED, JobState.FAILED, JobState.SUCCEEDED)


def _known_or_unknown(state: object) -> object:
    return state if state in set(JobState) else JobState.UNKNOWN


AnsweredState = Annotated[JobState, BeforeValidator(_known_or_unknown)]


class JobProgress(Answer):
    done: float = 0
    total: float = 0
    unit: str = ""


class StatusReason(Answer):
    """Why a job failed: `code` for programs, `message` for people."""

    code: str
    message: str


class Job(Answer):
    id: str
    name: str
    state: AnsweredState
    terminal: bool = False
    """Whether the job has ended; also where a client does not know its state."""

    stage: str | None = None
    progress: JobProgress = JobProgress()
    status_reason: StatusReason | None = None
    seed: int = 0
    labels: dict[str, str] = {}
    version: int = 0
    """It rises with every change; the job's `ETag` is `"v<version>"`."""

    spec: dict[str, Any]
    result: dict[str, Any] | None = None
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    estimated_finish: float | None = None
    """Of one running job that is asked for, epoch seconds by what earlier ones took; None where
    nothing like it has run here."""


class JobChange(Strict):
    """What may be changed of a job; None leaves it as it is."""

    name: Annotated[str, StringConstraints(max_length=200, strip_whitespace=True)] | None = None
    labels: Labels | None = None


class Extension(Strict):
    """How much further a search is to go."""

    generations: int = Field(ge=1, le=MAX_GENERATIONS)


class TargetEstimate(Answer):
    """What is known of a target beforehand."""

    device: str
    budget_ms: float | None
    """None where it is a share of a latency that the job has to measure first."""

    closest_ms: float | None
    """Predicted latency of the fastest network of the space; None where the device has not been
    learnt for this model and workload."""


class StageEstimate(Answer):
    stage: str
    seconds: float | None
    """By earlier jobs of the task, scaled by the work; None where there was none."""


class DryRun(Answer):
    """What a job would come to."""

    num_networks: str
    """Of the space, in decimal digits: more than a JSON number holds exactly, for some."""

    num_evaluations: int
    targets: list[TargetEstimate]
    stages: list[StageEstimate]
    total_seconds: float | None
    num_earlier_jobs: int
    """That the times are told by."""


class JobPage(Answer):
    items: list[Job]
    next_cursor: str | None = None
    """Give it as `cursor` for the page that follows; None after the last one."""


class Event(Answer):
    """Something that happened to a job; `seq` counts from 1 without gaps."""

    seq: int
    at: float
    kind: str
    level: str
    message: str
    data: dict[str, Any] = {}


class EventPage(Answer):
    items: list[Event]
    job_state: AnsweredState
    """State of the job when the page was read."""

    terminal: bool = False
    """Whether the job had ended by then: no event follows the page's, but for `more`."""

    more: bool = False
    """Whether there are further events already; then ask again at once."""


class Evaluation(Answer):
    source: str
    generation: int
    index_in_generation: int
    fingerprint: str
    fidelity: str
    subnet: dict[str, Any]
    metrics: dict[str, Any]
    created_at: float | None = None


class EvaluationPage(Answer):
    items: list[Evaluation]


class Artifact(Answer):
    id: str
    target_index: int | None
    name: str
    sha256: str
    size_bytes: int
    media_type: str
    created_at: float


class ArtifactDigests(Answer):
    """By which a download is checked: as a whole, and in chunks of `chunk_bytes`, the last of
    which may be shorter."""

    sha256: str
    size_bytes: int
    chunk_bytes: int
    chunks: list[str]


class SigningKey(Answer):
    """`public_key` is Ed25519's 32 bytes in base64."""

    id: str
    public_key: str
    created_at: float


class SigningKeyPage(Answer):
    items: list[SigningKey]


class ArtifactPage(Answer):
    items: list[Artifact]


class FieldError(Answer):
    field: str
    reason: str


# --- the audit log -------------------------------------------------------------------------


class AuditedCall(Answer):
    """A change that was made."""

    id: int
    at: float
    key_id: str | None
    action: str
    """Method and route, such as `POST /v1/search-jobs/{job_id}:cancel`."""

    target: str
    """The path that was called."""

    request_id: str
    client: str
    """The caller's address."""


class AuditPage(Answer):
    items: list[AuditedCall]
    next_cursor: int | None = None


# --- errors and the server itself ----------------------------------------------------------


class Problem(Answer):
    """An error as RFC 9457 has it; `code` is stable, `errors` name the fields at fault."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] = []
    request_id: str = ""


class ServerInfo(Answer):
    name: str
    version: str
    allows_hub: bool = False
    """Whether uploads may be fetched from a hub."""


class Health(Answer):
    status: Literal["ok"] = "ok"
