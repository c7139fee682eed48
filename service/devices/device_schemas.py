"""What travels over HTTP about devices: agents, measurements, predictors, onboardings, keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from service.jobs.job_spec import ModelSource, SpaceSpec, WorkloadSpec
from service.schemas import Answer, AnsweredState, JobProgress, Name, StatusReason, Strict
from service.validation import WrongField

DeviceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.\-]{0,62}$")]
AgentId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_\-]{8,80}$")]
Scope = Literal[
    "jobs:read", "jobs:write", "artifacts:read", "devices:write", "devices:measure", "admin"
]
Token = Annotated[int, Field(ge=0, lt=2**31)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400, allow_inf_nan=False)]


# --- agents --------------------------------------------------------------------------------


class NewDevice(Strict):
    """An agent's registration; sent again now and then as a sign of life."""

    name: DeviceName
    identity: dict[str, Any]
    """Processor, cores, memory, system, and `runtimes` by name with their versions."""

    agent_id: AgentId | None = None
    """Of the installation that speaks for the device: it knows its device by any name."""


class ClaimedMeasurementJob(Answer):
    id: str
    token: int
    spec: dict[str, Any]
    lease_seconds: float
    traceparent: str | None = None
    """Of the job that waits for it, where it is traced."""


class LeaseRenewal(Strict):
    token: Token


class MeasurementResult(Strict):
    token: Token
    result: dict[str, Any]


class MeasurementFailure(Strict):
    token: Token
    code: Name
    message: Annotated[str, StringConstraints(max_length=4000)]
    retry: bool = True
    """False where another attempt on this device would fail the same way."""


# --- devices -------------------------------------------------------------------------------


class Device(Answer):
    id: str
    name: str
    identity: dict[str, Any]
    fingerprint: str = ""
    last_seen_at: float
    is_online: bool = True
    """Whether its agent was heard of within the last minute."""

    retired_at: float | None = None
    num_predictors: int = 0


class DevicePage(Answer):
    items: list[Device]
    next_cursor: str | None = None
    """Give it as `cursor` for the page that follows; None after the last one. So in every list."""


class DeviceChange(Strict):
    """What is left out stays as it is."""

    name: DeviceName | None = None
    retired: bool | None = None
    """False brings a retired device back."""


class Measurement(Answer):
    """One network in one session, raw samples and all."""

    id: str
    session_id: str
    predictor_key: str
    shape_key: str
    purpose: str
    network_key: str
    runtime: str
    precision: str
    threads: int
    batch_size: int
    seq_len: int
    subnet: dict[str, Any] | None
    subnet_fingerprint: str | None
    blob: str | None
    median_ms: float
    p95_ms: float
    is_noisy: bool
    samples: dict[str, Any]
    created_at: float


class MeasurementPage(Answer):
    items: list[Measurement]
    next_cursor: str | None = None


class MeasuringSession(Answer):
    id: str
    device_fingerprint: str
    measurement_job_id: str
    job_id: str | None
    workload: dict[str, Any]
    workload_key: str = ""
    runtime_version: str
    shape: dict[str, Any]
    shape_key: str
    environment: dict[str, Any]
    peaks: dict[str, Any]
    summary: dict[str, Any]
    anchors: list[Any]
    is_noisy: bool
    created_at: float


class MeasuringSessionPage(Answer):
    items: list[MeasuringSession]
    next_cursor: str | None = None


class Predictor(Answer):
    id: str
    device_id: str
    job_id: str | None
    predictor_key: str
    shape_key: str
    version: int
    fit_report: dict[str, Any]
    created_at: float


class PredictorPage(Answer):
    items: list[Predictor]
    next_cursor: str | None = None


class PredictorDetail(Predictor):
    payload: dict[str, Any]


class Prediction(Strict):
    """Networks whose latency is asked for."""

    predictor: Name | None = None
    """Id of one version; or give `shape`, for the newest that fits."""

    shape: dict[str, Any] | None = None
    """Sizes of the unsearched model."""

    workload: WorkloadSpec = WorkloadSpec()
    subnets: list[dict[str, Any]] = Field(min_length=1, max_length=1000)
    statistic: Literal["p50", "p95"] = "p50"

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.predictor is None) == (self.shape is None):
            raise WrongField("shape", "give exactly one of shape and predictor")
        return self


class PredictedLatency(Answer):
    mean_ms: float
    lower_ms: float
    upper_ms: float
    extrapolating: bool
    """Beyond all that was measured: then measure, do not trust."""

    breakdown: dict[str, float]
    """Share of the latency by part of the network; the shares sum to 1."""


class PredictedPage(Answer):
    items: list[PredictedLatency]
    predictors: list[str]


# --- measuring on request ------------------------------------------------------------------


class MeasureRequest(Strict):
    workload: WorkloadSpec = WorkloadSpec()
    shape: dict[str, Any]
    subnets: list[dict[str, Any]] = Field(min_length=1, max_length=64)
    rounds: int = Field(default=5, ge=1, le=100)
    repeats: int = Field(default=4, ge=1, le=200)
    seed: int = Field(default=0, ge=0, lt=2**31)
    agent_timeout_s: Seconds = 600.0
    """How long it waits for an agent that is offline."""


class MeasurementJob(Answer):
    id: str
    device_id: str
    state: str
    attempts: int
    error: dict[str, Any] | None
    session_id: str | None = None
    """Of its measurements, once it is done."""

    waiting_since: float | None = None
    """Since when it has been known that no agent of the device is connected."""

    created_at: float
    finished_at: float | None


# --- onboarding ----------------------------------------------------------------------------


class OnboardingRequest(Strict):
    """Learn how fast a device runs the networks of a space; no model is trained."""

    model: ModelSource | None = None
    shape: dict[str, Any] | None = None
    """Sizes of the unsearched model, where there is no upload."""

    space: SpaceSpec = SpaceSpec()
    workload: WorkloadSpec = WorkloadSpec()
    max_measurements: int = Field(default=50, ge=10, le=1000)
    """Networks of each precision at most."""

    num_holdout: int = Field(default=8, ge=2, le=1000)
    """Further networks on which the fitted predictor is judged."""

    tolerance: float = Field(default=0.05, ge=0.005, le=1, allow_inf_nan=False)
    """Half-width of the predicted interval, as a share, that is narrow enough."""

    max_minutes: float = Field(default=5, ge=0.5, le=600, allow_inf_nan=False)
    budgets_ms: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default=[], max_length=32
    )
    """Latencies near which the predictor has to be exact; over the whole space without any."""

    rounds: int = Field(default=5, ge=3, le=100)
    repeats: int = Field(default=4, ge=1, le=200)
    agent_timeout_s: Seconds = 600.0
    """How long it waits for an agent that is offline."""

    mode: Literal["full", "check"] = "full"
    """`check` measures the anchors again, and more only where the device has changed."""

    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _has_one_shape(self) -> Self:
        if (self.model is None) == (self.shape is None):
            raise WrongField("shape", "give exactly one of model and shape")
        return self


class OnboardingSpec(OnboardingRequest):
    """As it is stored: the device by its id, the precisions spelled out."""

    device: Name


class Onboarding(Answer):
    id: str
    device_id: str
    state: AnsweredState
    terminal: bool = False
    stage: str | None = None
    progress: JobProgress = JobProgress()
    status_reason: StatusReason | None = None
    spec: dict[str, Any]
    result: dict[str, Any] | None = None
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None


class OnboardingPage(Answer):
    items: list[Onboarding]
    next_cursor: str | None = None


# --- keys ----------------------------------------------------------------------------------


class NewKey(Strict):
    name: Name
    scopes: list[Scope] = Field(min_length=1, max_length=6)
    expires_at: float | None = Field(default=None, gt=0, lt=1e11, allow_inf_nan=False)
    """Epoch seconds; None is never."""


class ApiKey(Answer):
    id: str
    name: str
    scopes: list[str]
    created_at: float
    last_used_at: float | None
    expires_at: float | None
    revoked_at: float | None


class CreatedKey(ApiKey):
    key: str
    """Shown this once: only its hash is stored."""


class ApiKeyPage(Answer):
    items: list[ApiKey]
    next_cursor: str | None = None
