"""What one step of a job hands to the next: names of blobs, choices made, figures found."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from predictors.workload import Workload
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig
from search.training.tasks import Task, task_of


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def updated(self, **changes: Any) -> Self:
        return self.model_copy(update=changes)


class Blobs(Frozen):
    """SHA-256 of the rows of each split, of the file that says how others are read like them (the
    tokenizer's, or the images' preprocessor's), of some of the test split's texts, of the rows
    without labels, and of the parts of the model."""

    train: str
    search: str
    validation: str
    test: str
    reader: str
    sample: str | None = None
    unlabelled: str | None = None
    teacher: str | None = None
    supernet: str | None = None


class Checkpoint(Frozen):
    """Where a sliced training stands. `stale` was superseded by `current` and may go."""

    current: str
    stale: str | None = None


class StageRecord(Frozen):
    """What one stage did to a target's network; figures are those after it.

    Quality is that of the validation split, except for `search` (search split) and `report`
    (test split).
    """

    stage: str
    quality: float
    latency_ms: float | None = None
    size_bytes: int | None = None
    kept: bool = True
    note: str = ""


class MeasuredFile(Frozen):
    """An exported file and what the device measured of it; `reference_ms` is the p50 of the
    unsearched model in the same session. `energy_mj` is of one inference, None where the device
    cannot measure it."""

    onnx: str
    size_bytes: int
    p50_ms: float
    p95_ms: float
    reference_ms: float
    energy_mj: float | None = None


class ExportRecord(Frozen):
    """A winner in a further format: blobs by their places in its folder, and how its answers
    compare with those of the network in floating point; or the `error` why it is not there."""

    format: str
    files: dict[str, str] = Field(default_factory=dict)
    size_bytes: int | None = None
    precision: str | None = None
    agreement: float | None = None
    max_error: float | None = None
    num_rows: int | None = None
    note: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    error: str = ""


class Look(Frozen):
    """What is known of a network between two stages of its recipe: `Figures` as plain data, and
    its ONNX file. The file itself is kept where its robustness is asked for."""

    figures: dict[str, Any]
    file_bytes: int
    file: str | None = None


class StageOutcome(Frozen):
    """What a stage of a recipe did to a target's network, and why it was kept or taken back.
    `after` is None where it could not be done."""

    stage: dict[str, Any]
    before: Look
    after: Look | None
    is_kept: bool
    reason: str


class StageTraining(Frozen):
    """Where one training of a stage stands: its run, and what the stage remembers beside it."""

    run: str
    memory: str | None = None


class Recipe(Frozen):
    """How far a target's recipe has come.

    Attributes:
        winner: fingerprint of the network that it began with.
        network: blob of the network as it stands, after all stages that were kept.
        good: the last one that had the lowest acceptable quality, and how many stages it has.
        trainings: of the stage that is being done.
        stale: blobs that nothing needs any more.
    """

    winner: str
    network: str
    look: Look
    good: str
    good_look: Look
    good_stages: int = 0
    outcomes: tuple[StageOutcome, ...] = ()
    trainings: tuple[StageTraining, ...] = ()
    stale: tuple[str, ...] = ()


class Vocabulary(Frozen):
    """Of a file whose network knows fewer words than the model."""

    reader: str
    size: int


class ProfileState(Frozen):
    """A device at a workload: what is known of it, and its times of the unsearched model."""

    device_id: str
    workload: dict[str, Any]
    predictor: str | None = None
    energy_predictor: str | None = None
    fit_report: dict[str, Any] = Field(default_factory=dict)
    measuring_tries: int = 0
    measuring_started_at: float | None = None
    onboarding_jobs: tuple[str, ...] = ()
    environment: dict[str, Any] = Field(default_factory=dict)
    baseline: MeasuredFile | None = None
    quantized: MeasuredFile | None = None
    measurement_job_id: str | None = None

    @property
    def target_workload(self) -> Workload:
        return Workload.from_dict(self.workload)


class Target(Frozen):
    """One latency promise on its way.

    Attributes:
        profiles: places of the profiles that its network may run in; several where its runtime
            is open. `profile` is the one that was chosen with the network.
        budget_ms: the promise; for a ratio it follows the unsearched model of the same session.
        bound_ms: what predictions are held against; a repair tightens it.
        weights: blob of the network's weights as far as trained.
        recipe: what compresses it further; its network is the target's from then on.
        is_of_own_kind: whether its file's latency tells nothing of others with its structure.
        rejected: fingerprints that were measured over the budget.
        is_hopeless: whether the job has stopped trying.
    """

    profiles: tuple[int, ...]
    profile: int | None = None
    budget_ms: float
    budget_ratio: float | None = None
    bound_ms: float
    subnet: dict[str, Any] | None = None
    predicted_ms: float | None = None
    weights: str | None = None
    onnx: str | None = None
    size_bytes: int | None = None
    measured: MeasuredFile | None = None
    is_met: bool = False
    is_hopeless: bool = False
    repairs: int = 0
    rejected: tuple[str, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    exports: tuple[ExportRecord, ...] = ()
    recipe: Recipe | None = None
    is_of_own_kind: bool = False

    @property
    def searched(self) -> str:
        """Fingerprint of its network as the search found it."""
        return self.config.fingerprint if self.recipe is None else self.recipe.winner

    @property
    def config(self) -> SubnetConfig:
        assert self.subnet is not None, "the shortlist has chosen a subnet"
        return SubnetConfig.from_dict(self.subnet)

    @property
    def quality(self) -> float:
        """Of its network as it is: what a stage made worse was taken back."""
        return next(record.quality for record in reversed(self.stages) if record.kept)

    @property
    def needs_network(self) -> bool:
        return self.onnx is None and not self.is_hopeless

    @property
    def needs_measuring(self) -> bool:
        return self.onnx is not None and not (self.is_met or self.is_hopeless)

    def with_stage(self, record: StageRecord, **changes: Any) -> Target:
        return self.updated(stages=(*self.stages, record), **changes)


class State(Frozen):
    """The whole of it. Fields fill up from the first step to the last."""

    shape: dict[str, Any]
    label_names: tuple[str, ...]
    data_sha256: str
    model_sha256: str
    profiles: tuple[ProfileState, ...]
    current_profile: int = 0
    profiles_of_target: tuple[tuple[int, ...], ...]
    training_precision: str
    weight_bits: int
    space: dict[str, Any]
    blobs: Blobs
    checkpoint: Checkpoint | None = None
    teacher_quality: float | None = None
    convergence: dict[str, Any] = Field(default_factory=dict)
    generation: int = 0
    targets: tuple[Target, ...] = ()
    current_target: int = 0
    baseline_onnx: str | None = None
    quantized_onnx: str | None = None
    robustness: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By SHA-256 of a file, what each measure found so far."""
    vocabularies: dict[str, Vocabulary] = Field(default_factory=dict)
    """By SHA-256 of a file, of those that have one of their own."""

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Self:
        return cls.model_validate(data)

    def dump(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @property
    def model_shape(self) -> ModelShape:
        return ModelShape.from_dict(self.shape)

    @property
    def task(self) -> Task:
        return task_of(self.model_shape)

    @property
    def search_space(self) -> SearchSpace:
        return SearchSpace.from_dict(self.space)

    @property
    def profile(self) -> ProfileState:
        return self.profiles[self.current_profile]

    @property
    def first_measured(self) -> ProfileState:
        """The first profile in which anything was measured."""
        return next((p for p in self.profiles if p.baseline), self.profiles[0])

    @property
    def delivered_files(self) -> tuple[str, ...]:
        """SHA-256 of every file whose figures a reader may compare, each once."""
        first = self.first_measured
        unsearched = [file.onnx for file in (first.baseline, first.quantized) if file]
        found = (target.onnx for target in self.targets)
        return tuple(dict.fromkeys([*unsearched, *filter(None, found)]))

    @property
    def examined_files(self) -> tuple[str, ...]:
        """Those, and what each stage of a recipe started from and made."""
        outcomes = [o for t in self.targets if t.recipe for o in t.recipe.outcomes]
        looks = [look for o in outcomes for look in (o.before, o.after) if look and look.file]
        return tuple(dict.fromkeys([*self.delivered_files, *(str(look.file) for look in looks)]))

    def with_profile(self, **changes: Any) -> State:
        """With the current profile changed."""
        profiles = list(self.profiles)
        profiles[self.current_profile] = self.profile.updated(**changes)
        return self.updated(profiles=tuple(profiles))

    @property
    def target(self) -> Target:
        return self.targets[self.current_target]

    def with_target(self, target: Target, index: int | None = None) -> State:
        place = self.current_target if index is None else index
        targets = (*self.targets[:place], target, *self.targets[place + 1 :])
        return self.updated(targets=targets)
