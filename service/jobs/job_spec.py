"""The job that a user asks for: a model, data, targets, and how all of it is searched."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from search.export.formats import FormatName
from service.jobs.compress_spec import CompressField, CompressSpec, check_sources
from service.schemas import (
    MAX_GENERATIONS,
    DataColumns,
    InputColumns,
    Labels,
    Name,
    Strict,
    TaskName,
)
from service.validation import WrongField

MAX_TEACHERS = 8


class ModelSource(Strict):
    upload: Name
    """Id of a finished upload of kind `model`."""


class DataSource(DataColumns):
    upload: Name
    """Id of a finished upload of kind `dataset`."""


class TeacherSource(Strict):
    upload: Name
    """Id of a finished upload of kind `teacher` or `model`."""


class UnlabelledSource(InputColumns):
    upload: Name
    """Id of a finished upload of kind `unlabelled`."""


class WorkloadSpec(Strict):
    batch_size: int = Field(default=1, ge=1, le=1024)
    seq_len: int | None = Field(default=None, ge=1, le=131_072)
    """Tokens of every text, padding included; in phase `decode` those that were read before.
    Left out: 64, or as many as an image of the model has."""

    phase: Literal["encode", "prefill", "decode"] | None = None
    """What a pass does. Left out: `encode`, or `prefill` for a language model."""

    threads: int = Field(default=1, ge=1, le=1024)
    runtime: Name = "onnxruntime"
    """A runtime by name; in a search, `auto` takes whichever of the device's is fastest."""

    provider: Name = "cpu"
    """Where the runtime executes: its CPU kernels, CUDA, TensorRT."""


class TargetSpec(Strict):
    """A latency promise: `statistic` of `workload` on `device` stays within the budget."""

    device: Name = "this-cpu"
    workload: WorkloadSpec = WorkloadSpec()
    statistic: Literal["p50", "p95"] = "p50"
    budget_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The latency to keep, in milliseconds. Either this or `budget_ratio`."""

    budget_ratio: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """The latency to keep, as a share of what the unsearched model measures in fp32."""

    min_quality: float | None = Field(default=None, le=1, allow_inf_nan=False)
    """The lowest acceptable quality on the validation split, if there is one: accuracy, cosine to
    the unsearched model's embedding, or (language models) minus the logarithm of perplexity."""

    @model_validator(mode="after")
    def _has_one_budget(self) -> Self:
        if (self.budget_ms is None) == (self.budget_ratio is None):
            raise WrongField("budget_ms", "give exactly one of budget_ms and budget_ratio")
        return self

    @property
    def budget_field(self) -> str:
        return "budget_ms" if self.budget_ms is not None else "budget_ratio"


class SpaceSpec(Strict):
    """Either a preset, or choices of one's own; a gene that is left out keeps the preset's."""

    preset: Literal["small", "medium", "wide"] = "medium"
    """`medium`: at most four choices a gene, widths of an eighth, a quarter, a half and all of the
    model's own. `small` has two or three and trains quickest; `wide` chooses the width of the
    stream between layers too, and a precision for each half of the layers."""

    num_layers: list[Annotated[int, Field(ge=1)]] | None = Field(default=None, min_length=1)
    num_heads: list[Annotated[int, Field(ge=1)]] | None = Field(default=None, min_length=1)
    ffn_dim: list[Annotated[int, Field(ge=1)]] | None = Field(default=None, min_length=1)
    embed_dim: list[Annotated[int, Field(ge=1)]] | None = Field(default=None, min_length=1)
    """Of the stream between layers."""

    precision_groups: int | None = Field(default=None, ge=1)
    """Runs of neighbouring layers, each with a precision of its own."""

    precision: list[Literal["fp32", "int8"]] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        for name in ("num_layers", "num_heads", "ffn_dim", "embed_dim"):
            values = getattr(self, name)
            if values is not None and values != sorted(set(values)):
                raise WrongField(name, f"must ascend without repeats, got {values}")
        if self.precision is not None and len(set(self.precision)) < len(self.precision):
            raise WrongField("precision", "names a precision twice")
        return self

    @property
    def choices(self) -> dict[str, Any]:
        """The genes that the job gives choices for itself."""
        genes = (
            "num_layers",
            "num_heads",
            "ffn_dim",
            "embed_dim",
            "precision",
            "precision_groups",
        )
        given = {gene: getattr(self, gene) for gene in genes}
        return {gene: values for gene, values in given.items() if values is not None}


class LossSpec(Strict):
    """Weights of what subnets and students learn from."""

    soft: float = Field(default=0.7, ge=0, le=1000, allow_inf_nan=False)
    """The teacher's answers."""

    hard: float = Field(default=0.3, ge=0, le=1000, allow_inf_nan=False)
    """The labels."""

    hidden: float = Field(default=0.5, ge=0, le=1000, allow_inf_nan=False)
    """The teacher's hidden states, layer by layer."""

    relations: float = Field(default=0, ge=0, le=1000, allow_inf_nan=False)
    """How the teacher's last layer relates tokens: queries, keys and values to themselves."""

    temperature: float = Field(default=2, gt=0, le=100, allow_inf_nan=False)
    """At which the teacher's answers are compared; higher tells more of the wrong ones."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.soft or self.hard):
            raise WrongField("soft", "answers are learnt from the teacher, the labels, or both")
        return self


class TrainingSpec(Strict):
    max_seq_len: int = Field(default=64, ge=4, le=8192)
    """Texts are cut to this many tokens, in training and in every evaluation."""

    batch_size: int = Field(default=32, ge=1, le=4096)
    """Rows of an optimizer step, over all processes and parts."""

    accumulation: int = Field(default=1, ge=1, le=1024)
    """Parts of a batch that are computed one after the other, to save memory."""

    learning_rate: float = Field(default=5e-5, gt=0, le=1, allow_inf_nan=False)
    weight_decay: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Of matrices alone; not given: what is usual for the model's kind."""

    max_grad_norm: float = Field(default=1, gt=0, le=1000, allow_inf_nan=False)
    teacher_epochs: float = Field(default=2, gt=0, le=100, allow_inf_nan=False)
    """Epochs of plain fine-tuning of the unsearched model."""

    supernet_epochs: float = Field(default=3, gt=0, le=1000, allow_inf_nan=False)
    """Epochs of elastic training, in which subnets learn from the fine-tuned model."""

    sampling: Literal["sandwich", "uniform"] = "sandwich"
    """Subnets of a step: the largest, the smallest and random ones, or random ones only."""

    num_random: int = Field(default=1, ge=1, le=64)
    """Random subnets of a step."""

    largest_every: int = Field(default=1, ge=1, le=1000)
    """The largest subnet is part of every so-many-th sandwich."""

    width_first: float = Field(default=0, ge=0, lt=1, allow_inf_nan=False)
    """Share of the elastic training in which only widths vary, at full depth."""

    supernet_teacher: Literal["fixed", "inplace"] = "fixed"
    """Who teaches subnets: the fine-tuned model, or the largest subnet as it is by then."""

    loss: LossSpec = LossSpec()
    average_decay: float = Field(default=0, ge=0, lt=1, allow_inf_nan=False)
    """Of the moving average of the supernet's weights that is searched; 0 takes the last ones."""

    shortlist_size: int = Field(default=3, ge=1, le=32)
    """Candidates of each target that are raced after a short distillation."""

    shortlist_steps: int = Field(default=60, ge=1, le=100_000)
    """Optimizer steps of that short distillation."""

    distill_epochs: float = Field(default=2, gt=0, le=1000, allow_inf_nan=False)
    """Compute for the distillation of each target's winner, in epochs of the unsearched model: a
    network of a fifth of its FLOPs trains five times as many epochs, up to `max_epochs`."""

    max_epochs: float = Field(default=20, gt=0, le=1000, allow_inf_nan=False)
    """No winner is distilled for more epochs than this."""

    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """`auto` takes what is fastest on the worker's processor; tf32 (fp32 whose products are
    rounded) and fp16 need a GPU."""

    @model_validator(mode="after")
    def _teacher_is_there(self) -> Self:
        is_whole_sandwich = self.sampling == "sandwich" and self.largest_every == 1
        if self.supernet_teacher == "inplace" and not is_whole_sandwich:
            raise WrongField(
                "supernet_teacher",
                "inplace needs the largest subnet in every step: a sandwich with largest_every 1",
            )
        return self


class SearchSpec(Strict):
    population: int = Field(default=24, ge=4, le=1000)
    """Networks that are proposed together, from what was known before."""

    generations: int = Field(default=6, ge=1, le=MAX_GENERATIONS)
    fidelity_rows: int = Field(default=600, ge=8, le=1_000_000)
    """Rows of the search split on which a candidate is evaluated."""

    halving: bool = True
    """Evaluate a candidate on fewer rows where an earlier one that costs no more is clearly better
    on those."""

    sampler: Literal["nsga2", "nsga3", "tpe", "gp", "random", "surrogate"] = "nsga2"
    """`surrogate` evolves on a learned model of quality and evaluates only what promises most;
    `nsga3` is for four objectives and more; `gp` needs seconds for each network."""

    objectives: list[
        Literal["flops", "num_params", "size_bytes", "peak_memory_bytes", "energy_mj"]
    ] = Field(default_factory=list)
    """What is kept low beside the latency of every target; each is counted, not measured. Only
    `energy_mj`, millijoules that the processor package spends on an inference, is predicted like
    latency: for the first target, whose device has to have counters of energy."""

    baselines: list[Literal["random", "uniform", "flops"]] = Field(
        default=["random", "uniform", "flops"]
    )
    """Searched for comparison, each with at most as many evaluations as the search."""

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for name in ("objectives", "baselines"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise WrongField(name, "names something twice")
        return self

    @property
    def num_evaluations(self) -> int:
        return self.population * self.generations


class MeasuringSpec(Strict):
    """How many networks are measured to learn a device, and how often each one."""

    num_networks: int = Field(default=32, ge=8, le=1000)
    num_holdout: int = Field(default=8, ge=2, le=1000)
    """Further networks on which the fitted predictor is judged."""

    max_networks: int = Field(default=50, ge=4, le=1000)
    """Networks of each precision at most: more are measured where intervals are too wide."""

    max_minutes: float = Field(default=10, gt=0, le=600, allow_inf_nan=False)
    """No further session is begun after this time."""

    max_age_hours: float = Field(default=24, ge=0, le=8760, allow_inf_nan=False)
    """A predictor of the device that is younger is used without measuring; 0 measures always."""

    tolerance: float = Field(default=0.05, gt=0, le=1, allow_inf_nan=False)
    """Half-width of the predicted interval near the budgets, as a share, that is good enough."""

    rounds: int = Field(default=7, ge=3, le=1000)
    repeats: int = Field(default=5, ge=1, le=10_000)
    """Timed runs of each network in each round."""


class RobustnessSpec(Strict):
    rows: int = Field(default=200, ge=0, le=1000)
    """Test rows at most on which every delivered file is asked how its answers hold; a large
    model is asked for fewer. 0 leaves it out."""


class JobSpec(Strict):
    """One search: a model, data, and one or more latency targets."""

    name: Annotated[str, StringConstraints(max_length=200, strip_whitespace=True)] = ""
    labels: Labels = Field(default_factory=dict)
    """To find the job by."""

    model: ModelSource
    data: DataSource
    task: TaskName = "text-classification"
    targets: list[TargetSpec] = Field(min_length=1, max_length=8)
    supernet_of: Name | None = None
    """Id of an earlier search of the same model and data: its supernet is searched again, for
    other budgets, devices or workloads, and nothing is trained but the winners."""

    space: SpaceSpec = SpaceSpec()
    training: TrainingSpec = TrainingSpec()
    search: SearchSpec = SearchSpec()
    measuring: MeasuringSpec = MeasuringSpec()
    robustness: RobustnessSpec = RobustnessSpec()
    compress: CompressField = CompressSpec()
    """Stages that compress each target's winner further, each kept only if it helps."""

    teachers: dict[Name, TeacherSource] = Field(default_factory=dict, max_length=MAX_TEACHERS)
    """By name, further models that stages may learn from (`teacher`): of any size, but with the
    model's labels and tokenizer."""

    unlabelled: UnlabelledSource | None = None
    """Rows without labels, that a stage of kind `distill-relations` learns from: texts of any
    task, pairs or images, whatever the model reads."""

    exports: list[FormatName] = Field(default_factory=list)
    """Formats beside ONNX in which every winner is delivered too; one that a worker cannot write
    is left out with a warning."""

    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _stages_have_sources(self) -> Self:
        check_sources(
            self.compress, self.teachers.keys(), has_unlabelled=self.unlabelled is not None
        )
        return self

    @model_validator(mode="after")
    def _exports_once(self) -> Self:
        if len(set(self.exports)) < len(self.exports):
            raise WrongField("exports", "names a format twice")
        return self
