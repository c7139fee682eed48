"""What a long benchmark has done so far, in files, so that it goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.equal_terms import Bools
from predictors.workload_predictor import WorkloadPredictor
from search.space import SubnetConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A trained network: which rows of the test split it answers rightly, and its loss there.

    Attributes:
        chosen_by: its accuracy on the rows that networks are chosen by.
    """

    is_right: Bools
    loss: float
    chosen_by: float


class Kept:
    """In a folder. It knows nothing of code that changes: a new version begins in a new folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def qualities(self) -> dict[SubnetConfig, float]:
        """Of the networks that were evaluated."""
        found = self._read("qualities") or []
        return {SubnetConfig.from_dict(entry["subnet"]): entry["quality"] for entry in found}

    def save_qualities(self, qualities: Mapping[SubnetConfig, float]) -> None:
        entries = [{"subnet": s.to_dict(), "quality": q} for s, q in qualities.items()]
        self._write("qualities", entries)

    def predictor(self) -> tuple[WorkloadPredictor, dict[str, Any]] | None:
        """With its fit report."""
        found = self._read("predictor")
        if found is None:
            return None
        return WorkloadPredictor.from_json(found["predictor"]), found["report"]

    def save_predictor(self, predictor: WorkloadPredictor, report: Mapping[str, Any]) -> None:
        self._write("predictor", {"predictor": predictor.to_json(), "report": report})

    def judged(self, name: str) -> Judged | None:
        found = self._read(name)
        if found is None:
            return None
        return Judged(**{**found, "is_right": np.array(found["is_right"], dtype=bool)})

    def save_judged(self, name: str, judged: Judged) -> None:
        entry = {**asdict(judged), "is_right": judged.is_right.astype(int).tolist()}
        self._write(name, entry)

    def figures(self, name: str) -> dict[str, Any] | None:
        """Whatever a benchmark found out under a name."""
        found: dict[str, Any] | None = self._read(name)
        return found

    def save_figures(self, name: str, figures: Mapping[str, Any]) -> None:
        self._write(name, figures)

    def _read(self, name: str) -> Any:
        path = self._folder / f"{name}.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def _write(self, name: str, data: Any) -> None:
        """Whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f"{name}.partial"
        partial.write_text(json.dumps(data))
        partial.rename(self._folder / f"{name}.json")
