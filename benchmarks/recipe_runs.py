"""Recipes applied to one network, beginnings that several share only once, and kept in files."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.kept import Kept
from search.compress.checkpoint import load_compressed
from search.compress.network import Compressed, StageData
from search.compress.pipeline import run_recipe
from search.compress.recipe import CompressionRecipe, StageConfig

UNSPELLED = ("epochs", "learning_rate")  # every recipe's are alike


@dataclass(frozen=True, slots=True)
class Ran:
    """What a recipe made, and the report of each stage with its seconds.

    Attributes:
        key: of the recipe and the network that it was applied to, for folders.
    """

    key: str
    network: Compressed
    reports: tuple[dict[str, Any], ...]

    @property
    def seconds(self) -> float:
        return sum(float(report["seconds"]) for report in self.reports)


def spelled(stages: Sequence[StageConfig]) -> str:
    """A recipe in a line: kinds, with the settings that are not the usual ones."""
    return ", ".join(map(_spelled, stages))


def _spelled(stage: StageConfig) -> str:
    own = [
        f"{field.name} {getattr(stage, field.name)}"
        for field in fields(stage)
        if field.name not in UNSPELLED and getattr(stage, field.name) != field.default
    ]
    return f"{stage.kind} ({', '.join(own)})" if own else stage.kind


class RecipeRuns:
    """In a folder: what was run there before is read. Every stage is kept, whatever it buys."""

    def __init__(self, network: Compressed, data: StageData, folder: Path) -> None:
        self._network, self._data, self._folder = network, data, folder

    def run(self, stages: Sequence[StageConfig]) -> Ran:
        """Raises: InvalidInput where the stages cannot follow each other, or a stage does not fit
        the network."""
        return self._run(CompressionRecipe(stages=tuple(stages)).stages)

    def _run(self, stages: tuple[StageConfig, ...]) -> Ran:
        key = self._key(stages)
        if not stages:
            return Ran(key, self._network, ())
        folder = self._folder / key
        kept = Kept(folder)
        report = kept.figures("report")
        if report is not None:
            network = load_compressed(folder / "stage-0.safetensors")
            return Ran(key, network, (*self._reports(stages[:-1]), report))
        before = self._run(stages[:-1])
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        last = CompressionRecipe(stages=stages[-1:])
        ((network, found),) = run_recipe(
            before.network, last, self._data, None, checkpoints=folder
        )
        report = {**found.to_dict(), "seconds": round(time.perf_counter() - start, 1)}
        kept.save_figures("report", report)
        return Ran(key, network, (*before.reports, report))

    def _reports(self, stages: tuple[StageConfig, ...]) -> tuple[dict[str, Any], ...]:
        """Of stages that were run before."""
        reports = []
        for end in range(1, len(stages) + 1):
            report = Kept(self._folder / self._key(stages[:end])).figures("report")
            assert report is not None
            reports.append(report)
        return tuple(reports)

    def _key(self, stages: Sequence[StageConfig]) -> str:
        whole = [self._network.subnet.to_dict(), *(stage.to_dict() for stage in stages)]
        text = json.dumps(whole, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
