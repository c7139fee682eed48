"""The predictor on other people's measurements: HAT's (3 devices) and HW-GPT-Bench's (14).

Prints JSON and keeps results/latency_public.json. Errors, coverage and half-widths in percent.

python -m benchmarks.latency_public --data DIR [--splits 20] [--quick]
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

# One core, as the figures of time say; before numpy reads them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks.common import report_result
from benchmarks.public.emulated import score_sessions
from benchmarks.public.few_shot import NUM_SOURCE_ROWS, score_few_shot
from benchmarks.public.hat import read_features, read_hat
from benchmarks.public.hat_mlp import NUM_STEPS, predict_with_mlp
from benchmarks.public.hwgpt import read_hwgpt
from benchmarks.public.scoring import mape, mean_scores, score_table
from benchmarks.public.table import Table, split

SIZES = (20, 50, 100, 300)
FEW = (10, 20)
FEW_ROWS, SPLITS_OF_FEW_ROWS = 100, 3
MIN_ROWS = 1000  # a device with fewer has nothing to hold out
HAT_TRAINING = 1600
HAT_HELD_OUT = 200


def main() -> int:
    args = _parse()
    started = time.monotonic()
    hat_paths = sorted((args.data / "hat").glob("*_all.csv"))
    gpt_paths = sorted(
        path for path in (args.data / "hwgpt").glob("gpt_*.csv") if "noise" not in path.stem
    )
    if not hat_paths and not gpt_paths:
        raise SystemExit(f"{args.data} holds neither hat/*_all.csv nor hwgpt/gpt_*.csv")
    plan = Plan(quick=args.quick, num_splits=args.splits)
    gpt_tables = {path.stem: _devices(path) for path in gpt_paths}
    figures = {
        "num_splits": plan.num_splits,
        "hat": {path.stem: plan.hat(path) for path in hat_paths},
        "hat_mlp_1600": {path.stem: plan.published_mlp(path) for path in hat_paths},
        "hwgpt": {
            f"{stem}/{device}": plan.curve(table)
            for stem, tables in gpt_tables.items()
            for device, table in tables.items()
        },
        "few_shot": {
            f"{stem}/{device}": scores
            for stem, tables in gpt_tables.items()
            for device, scores in plan.few_shot(tables).items()
        },
        "sessions": {path.stem: plan.sessions(path) for path in hat_paths},
    }
    wall_s = time.monotonic() - started
    report_result("latency_public", {"wall_s": wall_s, **_rounded(figures)}, keep=not args.quick)
    return 0


class Plan:
    """How much of it is run."""

    def __init__(self, *, quick: bool, num_splits: int) -> None:
        self.num_splits = 2 if quick else num_splits
        self._sizes = SIZES[:2] if quick else SIZES
        self._few = FEW[:1] if quick else FEW
        self._num_sessions = 4 if quick else 40
        self._num_source_rows = 60 if quick else NUM_SOURCE_ROWS
        self._num_published_mlps = 1 if quick else 2
        self._mlp_steps = 50 if quick else NUM_STEPS

    def curve(self, table: Table) -> dict[str, Any]:
        return {str(n): score_table(table, n, num_splits=self._splits(n)) for n in self._sizes}

    def hat(self, path: Path) -> dict[str, Any]:
        scores = self.curve(read_hat(path))
        for size in self._sizes:
            scores[str(size)] |= self._mlp(path, size, 1)
        return scores

    def published_mlp(self, path: Path) -> dict[str, float]:
        """HAT's own predictor as published: 1,600 rows to fit (with validation), 200 held out."""
        return self._mlp(path, HAT_TRAINING, self._num_published_mlps)

    def few_shot(self, tables: dict[str, Table]) -> dict[str, Any]:
        return score_few_shot(
            tables,
            self._few,
            num_splits=self.num_splits,
            num_source_rows=self._num_source_rows,
        )

    def sessions(self, path: Path) -> dict[str, float]:
        return score_sessions(read_hat(path), num_sessions=self._num_sessions)

    def _splits(self, size: int) -> int:
        """More where a split says less: with 20 rows, coverage differs by 6 points between two."""
        return self.num_splits * (SPLITS_OF_FEW_ROWS if size <= FEW_ROWS else 1)

    def _mlp(self, path: Path, size: int, num_splits: int) -> dict[str, float]:
        table, features = read_hat(path), read_features(path)
        predict = partial(predict_with_mlp, features, table.measured_ms, num_steps=self._mlp_steps)
        size = min(size, len(table) - HAT_HELD_OUT)
        scores = []
        for seed in range(num_splits):
            rows, held_out = split(len(table), size, HAT_HELD_OUT, seed)
            error = mape(predict(rows, held_out, seed=seed), table.measured_ms[held_out])
            scores.append({"hat_mlp_mape": error})
        return mean_scores(scores)


def _devices(path: Path) -> dict[str, Table]:
    return {name: table for name, table in read_hwgpt(path).items() if len(table) >= MIN_ROWS}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return float(np.round(value, 4)) if isinstance(value, float) else value


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=20, help="random splits of each file")
    parser.add_argument("--quick", action="store_true", help="few splits, no file of results")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
