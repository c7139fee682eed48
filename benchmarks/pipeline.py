"""A whole search in one process, for any family: from a model's folder to measured files.

Train, reorder, train elastically, learn the device, search, race, distil, export, compare and
measure: what a job does in steps, by the library's own functions and without the service.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.exported import export, judge, measure
from benchmarks.local_device import fit_predictor, weight_bits
from benchmarks.small_search import (
    Found,
    latency_task,
    num_steps,
    search_networks,
    sort_units_,
    train,
    train_supernet,
)
from predictors.workload import Workload
from predictors.workload_predictor import WorkloadPredictor
from search.compress.distill import Distillation, TaskData
from search.costs import flops, num_params
from search.data.dataset import Dataset
from search.model.extract import extract
from search.model.importing import import_model
from search.model.transformer import ElasticTransformer
from search.pareto import front_ranks
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig
from search.training.encoding import encode_splits, with_vectors
from search.training.evaluate import evaluate
from search.training.order import BatchOrder
from search.training.rows import Rows
from search.training.supernet import finetuning_losses
from search.training.tasks import task_of
from search.training.teacher import teacher_of

SEED = 0
MEASURED_NETWORKS, HELD_OUT_NETWORKS = 24, 6
RACED = 3

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How long everything takes. Rates and epochs as a job's `training` has them."""

    max_seq_len: int
    batch_size: int
    learning_rate: float
    teacher_epochs: float
    supernet_epochs: float
    distill_epochs: float
    race_steps: int = 20
    search_rows: int = 300
    population: int = 16
    generations: int = 4
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallJob:
    """What is searched, and for which shares of the original's latency."""

    name: str
    folder: Path
    shape: ModelShape
    dataset: Dataset
    workload: Workload
    effort: Effort
    budgets: tuple[float, ...] = (0.5, 0.25)


@dataclass(slots=True)
class Clock:
    """Seconds of each stage."""

    say: Say
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 1)
        self.say(f"{name}: {self.seconds[name]:.0f} s")


def run_job(job: SmallJob, say: Say) -> dict[str, Any]:
    """Figures of the original and of a winner for each budget."""
    clock = Clock(say)
    with tempfile.TemporaryDirectory() as folder:
        return _Run(job, clock, Path(folder)).figures()


@dataclass(frozen=True, slots=True)
class Winner:
    """A network that was found for a budget, and trained to the end."""

    budget: float
    found: Found
    model: ElasticTransformer
    distilled: float

    @property
    def name(self) -> str:
        return f"winner-{round(100 * self.budget)}"

    def figures(self) -> dict[str, Any]:
        return {
            "budget": self.budget,
            "predicted_ms": self.found.cost,
            "inherited_quality": self.found.quality,
            "validation_quality": self.distilled,
            "subnet": self.found.subnet.to_dict(),
        }


class _Run:
    def __init__(self, job: SmallJob, clock: Clock, folder: Path) -> None:
        self.job, self.clock, self.folder = job, clock, folder
        self.shape, self.effort = job.shape, job.effort
        self.task = task_of(job.shape)
        self.weight_bits = weight_bits()

    def figures(self) -> dict[str, Any]:
        stage = self.clock.stage
        with stage("data"):
            rows = self._encoded()
        with stage("teacher"):
            teacher, rows = self._teacher(rows)
            original = evaluate(teacher, rows["validation"])
            self.clock.say(f"original: {self.task.show(original.value)}")
        with stage("reorder"):
            space = sort_units_(
                teacher, rows["train"], rows["search"], batch_size=self.effort.batch_size
            )
        with stage("supernet"):
            target_of = teacher_of(teacher, rows["train"])
            supernet = train_supernet(
                teacher,
                rows["train"],
                space,
                target_of,
                epochs=self.effort.supernet_epochs,
                learning_rate=self.effort.learning_rate,
                batch_size=self.effort.batch_size,
            )
            self._show_extremes(supernet, rows["validation"], space)
        with stage("device"):
            predictor, fit = fit_predictor(
                space,
                self.shape,
                self.job.workload,
                num_networks=MEASURED_NETWORKS,
                num_holdout=HELD_OUT_NETWORKS,
                seed=SEED,
            )
        with stage("search"):
            found = self._search(supernet, rows["search"], space, predictor)
        data = TaskData(rows["train"], rows["validation"], target_of, self.effort.batch_size)
        with stage("distil"):
            tried = [self._winner(b, supernet, data, predictor, found) for b in self.job.budgets]
            winners = [winner for winner in tried if winner is not None]
        with stage("export"):
            files = [
                export(name, model, subnet, rows["validation"], self.folder, self.job.workload)
                for name, model, subnet in self._networks(teacher, winners)
            ]
        with stage("measure"):
            latencies = measure(files, self.shape, self.job.workload, seed=SEED)
        with stage("test"):
            networks = judge(files, self.shape, self.job.workload, latencies, rows["test"])
        for winner in winners:
            networks[winner.name] |= winner.figures()
        return {
            "task": self.shape.task,
            "metric": self.task.metric,
            "rows": {name: len(part) for name, part in rows.items()},
            "workload": self.job.workload.to_dict(),
            "params": num_params(self.shape, SubnetConfig.full(self.shape)),
            "networks_in_space": space.num_networks,
            "evaluated": len(found),
            "front": self._front(found),
            "predictor": fit,
            "networks": networks,
            "seconds": {**self.clock.seconds, "all": round(sum(self.clock.seconds.values()), 1)},
        }

    def _front(self, found: Sequence[Found]) -> dict[str, float | None]:
        """Its networks, and its cost in the time that fine-tuning the whole model took.

        The device is learnt once, whatever is searched on it later: that is left out.
        """
        losses = np.array([(one.cost, -one.quality) for one in found])
        spent = sum(self.clock.seconds[stage] for stage in ("reorder", "supernet", "search"))
        is_finetuned = self.shape.task != "sentence-embedding"
        return {
            "networks": int((front_ranks(losses) == 0).sum()),
            "cost_in_finetunings": (
                round(spent / self.clock.seconds["teacher"], 2) if is_finetuned else None
            ),
        }

    def _networks(
        self, teacher: ElasticTransformer, winners: Sequence[Winner]
    ) -> Iterator[tuple[str, ElasticTransformer, SubnetConfig]]:
        """The original first."""
        full = SubnetConfig.full(self.shape)
        yield "original", teacher, full
        yield "original-int8", teacher, full.with_precision("int8")
        for winner in winners:
            yield winner.name, winner.model, winner.found.subnet

    # --- training ---------------------------------------------------------------------------

    def _encoded(self) -> dict[str, Rows]:
        job = self.job
        splits = job.dataset.split(SEED)
        length = self.effort.max_seq_len
        return dict(encode_splits(job.dataset, splits, job.folder, self.shape, max_seq_len=length))

    def _teacher(self, rows: dict[str, Rows]) -> tuple[ElasticTransformer, dict[str, Rows]]:
        model = import_model(self.job.folder, self.shape, SEED)
        model.dropout, model.weight_bits = self.effort.dropout, self.weight_bits
        if self.shape.task == "sentence-embedding":
            return model, {name: with_vectors(part, model) for name, part in rows.items()}
        order = BatchOrder(rows["train"], self.effort.batch_size, SEED)
        losses_at = finetuning_losses(model, order)
        total = num_steps(self.effort.teacher_epochs, order)
        train(model, losses_at, total, self.effort.learning_rate)
        return model, rows

    def _show_extremes(self, model: ElasticTransformer, rows: Rows, space: SearchSpace) -> None:
        for name, subnet in (("largest", space.largest), ("smallest", space.smallest)):
            quality = evaluate(model, rows, subnet.with_precision("fp32"))
            self.clock.say(f"{name} subnet: {self.task.show(quality.value)}")

    # --- search -----------------------------------------------------------------------------

    def _search(
        self,
        supernet: ElasticTransformer,
        rows: Rows,
        space: SearchSpace,
        predictor: WorkloadPredictor,
    ) -> list[Found]:
        loosest_ms = max(self.job.budgets) * predictor.reference_ms
        return search_networks(
            latency_task(space, predictor, loosest_ms),
            supernet,
            rows.spread(self.effort.search_rows),
            population=self.effort.population,
            generations=self.effort.generations,
        )

    def _winner(
        self,
        budget: float,
        supernet: ElasticTransformer,
        data: TaskData,
        predictor: WorkloadPredictor,
        found: Sequence[Found],
    ) -> Winner | None:
        """The best of a race among those that are predicted to keep the budget, distilled."""
        budget_ms = budget * predictor.reference_ms
        within = [one for one in found if one.cost <= budget_ms]
        if not within:
            closest = min(one.cost for one in found) / predictor.reference_ms
            self.clock.say(f"{budget:.0%}: the fastest network that was found takes {closest:.0%}")
            return None
        raced = []
        for one in sorted(within, key=lambda one: -one.quality)[:RACED]:
            student = extract(supernet, one.subnet)
            distilled = self._distilled(student, one.subnet, data, self.effort.race_steps)
            raced.append((distilled, one, student))
        _, best, student = max(raced, key=lambda entry: entry[0])
        full = flops(self.shape, SubnetConfig.full(self.shape), seq_len=self.job.workload.seq_len)
        share = flops(self.shape, best.subnet, seq_len=self.job.workload.seq_len) / full
        steps_per_epoch = len(data.train) / data.batch_size
        steps = round(self.effort.distill_epochs / max(share, 0.2) * steps_per_epoch)
        quality = self._distilled(student, best.subnet, data, steps)
        self.clock.say(
            f"{budget:.0%}: {self.task.show(best.quality)} inherited (search split), "
            f"{self.task.show(quality)} distilled (validation split)"
        )
        return Winner(budget, best, student, quality)

    def _distilled(
        self, student: ElasticTransformer, subnet: SubnetConfig, data: TaskData, steps: int
    ) -> float:
        distillation = Distillation(
            student,
            subnet,
            data,
            total_steps=max(1, steps),
            learning_rate=self.effort.learning_rate,
            seed=SEED + 2,
            precision="fp32",
        )
        distillation.run.advance(distillation.losses_at, should_stop=lambda: False)
        return distillation.quality().value
