"""How well a predictor of one session foretells another, on the data set of this repository.

For each condition of benchmarks/data/bert_latency.csv: fitted to the first networks of one
session, then asked about the rest of it, and about other networks in a later session that the
anchors relate to it. Needs no device and less than a minute.

python -m benchmarks.latency_sessions [--data benchmarks/data/bert_latency.csv] [--rows 24]
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import report_result
from benchmarks.latency_dataset import SHAPE
from predictors.key import PredictorKey
from predictors.predictor import LatencyPredictor, anchors_ratio
from predictors.rows import LatencyRow
from search.space import SubnetConfig

DATA = Path(__file__).parent / "data" / "bert_latency.csv"
MACS_PER_BYTE = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--rows", type=int, default=24, help="networks that are fitted to")
    args = parser.parse_args()
    sessions = read_sessions(args.data)
    figures = {}
    for name in (name for name in sessions if name.endswith("-c0")):
        condition, later = name.removesuffix("-c0"), f"{name.removesuffix('-c0')}-c1"
        figures[condition] = _judged(name, sessions[name], sessions[later], args.rows)
    summary = {
        which: {
            name: float(np.mean([f[which][name] for f in figures.values()]))
            for name in ("mape", "coverage_90", "half_width")
        }
        for which in ("same_session", "later_session")
    }
    report_result("latency_sessions", {"mean": summary, "conditions": figures})
    return 0


def read_sessions(path: Path) -> dict[str, list[LatencyRow]]:
    """Rows of the networks of each session, with its anchors."""
    anchors: dict[str, list[float]] = defaultdict(list)
    networks: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            if line["role"] == "anchor":
                anchors[line["session"]].append(float(line["median_ms"]))
            else:
                networks[line["session"]].append(line)
    return {
        session: [_row(line, tuple(anchors[session])) for line in lines]
        for session, lines in networks.items()
    }


def _row(line: Mapping[str, str], anchors_ms: tuple[float, ...]) -> LatencyRow:
    num_heads = tuple(int(heads) for heads in line["num_heads"].split("|"))
    subnet = SubnetConfig(
        layers=tuple(range(len(num_heads))),
        num_heads=num_heads,
        ffn_dim=tuple(int(width) for width in line["ffn_dim"].split("|")),
        precision=line["precision"],
    )
    return LatencyRow(
        subnet=subnet,
        batch_size=int(line["batch_size"]),
        seq_len=int(line["seq_len"]),
        median_ms=float(line["median_ms"]),
        p95_ms=float(line["p95_ms"]),
        anchors_ms=anchors_ms,
    )


def _judged(
    name: str, rows: Sequence[LatencyRow], later: Sequence[LatencyRow], num_rows: int
) -> dict[str, Any]:
    runtime, precision, threads, *_ = name.split("-")
    key = PredictorKey(
        device_fingerprint="data-set",
        runtime=runtime,
        runtime_version="",
        provider="cpu",
        precision=precision,
        threads=int(threads.removeprefix("t")),
        phase="encode",
    )
    predictor = LatencyPredictor.fit(
        rows[:num_rows], key=key, shape=SHAPE, macs_per_byte=MACS_PER_BYTE
    )
    return {
        "device_factor": anchors_ratio(later[0].anchors_ms, rows[0].anchors_ms),
        "same_session": _errors(predictor, rows[num_rows:]),
        "later_session": _errors(predictor, later),
    }


def _errors(predictor: LatencyPredictor, rows: Sequence[LatencyRow]) -> dict[str, float]:
    estimate = predictor.predict([row.point for row in rows])
    measured = predictor.measured_ms(rows)
    inside = (estimate.lower_ms <= measured) & (measured <= estimate.upper_ms)
    return {
        "mape": float(np.abs(estimate.mean_ms / measured - 1).mean()),
        "coverage_90": float(inside.mean()),
        "half_width": float(np.median(estimate.half_widths)),
    }


if __name__ == "__main__":
    raise SystemExit(main())
