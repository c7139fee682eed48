"""What a report of a job holds."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.reports.charts import Chart
from service.schemas import Answer, Event, JobProgress, StatusReason


class TargetAsked(Answer):
    """A promise as it was asked for, and in one sentence."""

    index: int
    device: str
    workload: dict[str, Any]
    statistic: str
    budget_ms: float | None
    budget_ratio: float | None
    min_quality: float | None
    sentence: str


class Asked(Answer):
    """`spec_yaml` is the whole job, ready to be submitted again."""

    task: str
    model: str
    data: str
    targets: list[TargetAsked]
    space: str
    evaluations: int
    spec_yaml: str


class Effect(Answer):
    """What a network was after a stage. None: the stage does not tell it."""

    stage: str
    quality: float | None = None
    latency_ms: float | None = None
    size_bytes: int | None = None
    kept: bool = True
    note: str = ""


class Layer(Answer):
    """A layer of the original; one that was dropped has neither heads nor neurons."""

    index: int
    is_kept: bool
    num_heads: int = 0
    ffn_dim: int = 0
    precision: str = ""


class Architecture(Answer):
    """A network layer by layer, beside the sizes of the original."""

    layers: list[Layer]
    full_heads: int
    full_ffn_dim: int
    embed_dim: int
    full_embed_dim: int
    vocab_size: int
    full_vocab_size: int


class File(Answer):
    """`id` is that of the artifact."""

    id: str
    name: str
    size_bytes: int
    sha256: str
    media_type: str


class Unsearched(Answer):
    """The fine-tuned model as it is, or merely quantized: what a search has to beat."""

    name: str
    p50_ms: float
    p95_ms: float
    quality: float
    size_bytes: int
    params: int | None = None


class TargetFound(Answer):
    """What became of a promise. `is_met` is None while it is open.

    Latencies are those of the exported file on the device, quality is that of the test split.
    """

    index: int
    asked: TargetAsked
    budget_ms: float | None = None
    is_met: bool | None = None
    predicted_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    quality: float | None = None
    quality_lower: float | None = None
    quality_upper: float | None = None
    quality_kept: float | None = None
    speedup: float | None = None
    size_bytes: int | None = None
    params: int | None = None
    energy_mj: float | None = None
    repairs: int = 0
    precision: str | None = None
    onnx: str | None = None
    fingerprint: str | None = None
    subnet: dict[str, Any] | None = None
    architecture: Architecture | None = None
    effects: list[Effect] = Field(default_factory=list)
    files: list[File] = Field(default_factory=list)
    sentence: str = ""
    best_found_ms: float | None = None
    """Of a promise that was missed: the fastest that was measured or predicted."""


class Searched(Answer):
    """One way to look for networks, and what it came to."""

    source: str
    evaluations: int
    distinct: int
    hypervolume: float | None
    best_within: list[float | None]
    """For each target, the best quality predicted to keep it (inherited weights, search split)."""


class Learned(Answer):
    """How well a device is known: errors on networks that the predictor had not seen."""

    device: str
    runtime: str
    num_measurements: int
    mape: float | None
    within_10: float | None
    spearman: float | None
    spearman_equal_depth: float | None
    depth_only_mape: float | None
    flops_only_mape: float | None
    coverage: float | None
    interval_half_width: float | None
    noise_floor: float | None


class StageTime(Answer):
    """`seconds` is working time: waiting for a worker or an agent counts too, pauses do not."""

    stage: str
    state: str
    started_at: float | None = None
    finished_at: float | None = None
    seconds: float | None = None
    steps: int = 0
    repeats: int = 0


class Lineage(Answer):
    """By what the job can be told from every other one."""

    job_id: str
    seed: int
    data_sha256: str | None = None
    model_sha256: str | None = None
    supernet_of: str | None = None
    test_rows: int | None = None
    labels: list[str] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)
    devices: list[str] = Field(default_factory=list)
    repeat: str


class JobReport(Answer):
    """Everything that the page of a job shows, and its report. A job that goes on has one too."""

    version: int = 1
    id: str
    name: str
    state: str
    terminal: bool
    stage: str | None
    progress: JobProgress
    status_reason: StatusReason | None
    labels: dict[str, str]
    created_at: float
    started_at: float | None
    finished_at: float | None
    written_at: float
    last_event_seq: int
    headline: str
    notes: list[str]
    """What a reader should know before the figures."""

    metric: str
    asked: Asked
    targets: list[TargetFound]
    unsearched: list[Unsearched]
    searched: list[Searched]
    learned: list[Learned]
    stages: list[StageTime]
    charts: list[Chart]
    warnings: list[Event]
    lineage: Lineage

    def chart(self, key: str) -> Chart | None:
        return next((chart for chart in self.charts if chart.key == key), None)
