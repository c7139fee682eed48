"""The search as a technique: networks of so much of the latency, found in a supernet of the
subject."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kept import Kept
from benchmarks.local_device import fit_predictor
from benchmarks.pipeline import SEED
from benchmarks.small_search import (
    Found,
    latency_task,
    num_steps,
    search_networks,
    train_supernet,
)
from benchmarks.structures import MARGIN
from benchmarks.subjects import Subject
from predictors.workload_predictor import WorkloadPredictor
from search.baselines import hardware_agnostic
from search.choosing import believed_qualities
from search.compress.network import Compressed
from search.costs import flops
from search.evolution import SearchTask
from search.model.extract import extract
from search.model.transformer import ElasticTransformer
from search.objectives import Floats
from search.space import SearchSpace, SubnetConfig
from search.training.loop import load_weights_, save_weights
from search.training.order import BatchOrder

SHARE = 0.25  # of latency or FLOPs, as the recipes that halve layers and widths keep
PRECISION_GROUPS = 2
MEASURED_NETWORKS, HELD_OUT_NETWORKS = 24, 6
LATENCY, AGNOSTIC, JOINT = "latency", "flops", "joint"


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """Winners by the way that found them, with inherited weights; what the search took.

    `joint` had precision among its genes and the budget that the `latency` winner keeps in int8.
    """

    winners: Mapping[str, Compressed]
    figures: dict[str, Any]


def searched(subject: Subject, state: Path) -> Searched:
    """Searches, or reads what an earlier run found."""
    supernet = _supernet(subject, state)
    kept = Kept(state)
    figures = kept.figures("searched")
    if figures is None:
        figures = _Search(subject, supernet).figures()
        kept.save_figures("searched", figures)
    subnets = {name: SubnetConfig.from_dict(data) for name, data in figures["subnets"].items()}
    winners = {name: Compressed(extract(supernet, s), s) for name, s in subnets.items()}
    return Searched(winners=winners, figures=figures)


def searched_for_speeds(
    subject: Subject, state: Path, speeds: Iterable[int]
) -> dict[int, Compressed]:
    """Networks with inherited weights, by how many times faster than the subject in fp32 they are
    once a recipe has rounded them to int8.

    A speed for which nothing was found is left out. What an earlier run found is read.
    """
    supernet = _supernet(subject, state)
    kept = Kept(state)
    figures = kept.figures("searched-for-speeds")
    if figures is None:
        figures = _Search(subject, supernet).for_speeds(speeds)
        kept.save_figures("searched-for-speeds", figures)
    subnets = {
        int(times): SubnetConfig.from_dict(data).with_precision("fp32")
        for times, data in figures.items()
    }
    return {times: Compressed(extract(supernet, s), s) for times, s in subnets.items()}


def _supernet(subject: Subject, state: Path) -> ElasticTransformer:
    path = state / "supernet.safetensors"
    if path.is_file():
        supernet = extract(subject.whole.model, SubnetConfig.full(subject.shape))
        load_weights_(supernet, path)
        return supernet
    supernet = train_supernet(
        subject.whole.model,
        subject.rows["train"],
        subject.space,
        subject.data.task.target_of,
        epochs=subject.effort.supernet_epochs,
        learning_rate=subject.effort.learning_rate,
        batch_size=subject.effort.batch_size,
    )
    save_weights(supernet, path)
    return supernet


class _Search:
    def __init__(self, subject: Subject, supernet: ElasticTransformer) -> None:
        self._subject, self._supernet = subject, supernet
        self._rows = subject.rows["search"].spread(subject.effort.search_rows)
        self._predictor, self._fit = fit_predictor(
            subject.space,
            subject.shape,
            subject.job.workload,
            num_networks=MEASURED_NETWORKS,
            num_holdout=HELD_OUT_NETWORKS,
            seed=SEED,
        )

    def figures(self) -> dict[str, Any]:
        """Winners' subnets by name; a way that found nothing as fast is left out."""
        subject, predictor = self._subject, self._predictor
        floats = subject.space.with_choices({"precision": ("fp32",)})
        budget_ms = SHARE * predictor.reference_ms
        by_latency = latency_task(floats, predictor, budget_ms)
        by_flops = hardware_agnostic(by_latency, subject.shape, self._flops, budget_ratio=SHARE)
        found = {
            LATENCY: self._winner(by_latency, budget_ms),
            AGNOSTIC: self._winner(
                by_flops, SHARE * self._flops(SubnetConfig.full(subject.shape))
            ),
        }
        if best := found[LATENCY]:
            mixed = subject.space.with_choices({"precision_groups": PRECISION_GROUPS})
            int8_ms = _predicted_ms(predictor, best.with_precision("int8"))
            found[JOINT] = self._winner(latency_task(mixed, predictor, int8_ms), int8_ms)
        subnets = {name: subnet for name, subnet in found.items() if subnet is not None}
        order = BatchOrder(subject.rows["train"], subject.effort.batch_size, SEED)
        return {
            "subnets": {name: subnet.to_dict() for name, subnet in subnets.items()},
            "found_nothing": [name for name in found if name not in subnets],
            "predicted_ms": {n: _predicted_ms(predictor, s) for n, s in subnets.items()},
            "predictor": self._fit,
            "evaluations": subject.effort.population * subject.effort.generations,
            "supernet_steps": num_steps(subject.effort.supernet_epochs, order),
        }

    def for_speeds(self, speeds: Iterable[int]) -> dict[str, Any]:
        """Subnets as plain data."""
        int8 = self._subject.space.with_choices({"precision": ("int8",)})
        found = {}
        for times in speeds:
            budget_ms = MARGIN * self._predictor.reference_ms / times
            subnet = self._winner(latency_task(int8, self._predictor, budget_ms), budget_ms)
            if subnet is not None:
                found[str(times)] = subnet.to_dict()
        return found

    def _winner(self, task: SearchTask, limit: float) -> SubnetConfig | None:
        effort = self._subject.effort
        found = search_networks(
            task,
            self._supernet,
            self._rows,
            population=effort.population,
            generations=effort.generations,
        )
        return _best_within(task.space, found, limit)

    def _flops(self, subnet: SubnetConfig) -> int:
        return flops(self._subject.shape, subnet, seq_len=self._subject.data.seq_len)


def _best_within(space: SearchSpace, found: Sequence[Found], limit: float) -> SubnetConfig | None:
    """By what all evaluations tell of each; None where none costs so little."""
    costs: Floats = np.array([one.cost for one in found])
    believed = believed_qualities(space, [f.subnet for f in found], [f.quality for f in found])
    within = np.flatnonzero(costs <= limit)
    return found[int(within[believed[within].argmax()])].subnet if len(within) else None


def _predicted_ms(predictor: WorkloadPredictor, subnet: SubnetConfig) -> float:
    return float(predictor.predict([subnet]).mean_ms[0])
