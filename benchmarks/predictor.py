"""Onboards this machine with the shape of MiniLM and judges the predictor on held-out networks.

Figures of a session that is too noisy are printed but not kept, and the exit status is 1.

python -m benchmarks.predictor [--networks 32] [--holdout 8] [--seed 0] [--raw samples.json]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.common import MINILM, report_result
from predictors.measuring import run_measuring_spec
from predictors.onboarding import choose_networks
from predictors.predictor import rows_of
from predictors.report import fit_and_report
from predictors.workload import Workload
from search.space import SearchSpace, SubnetConfig


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", type=int, default=32)
    parser.add_argument("--holdout", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--raw", type=Path, help="keep the raw samples here")
    args = parser.parse_args()

    started = time.monotonic()
    workload = Workload(batch_size=1, seq_len=64, threads=1)
    plan = choose_networks(
        SearchSpace.for_shape(MINILM),
        MINILM,
        workload,
        num_networks=args.networks,
        num_holdout=args.holdout,
        seed=args.seed,
    )
    spec = plan.to_spec(MINILM, workload, rounds=args.rounds, repeats=args.repeats, seed=args.seed)
    result = run_measuring_spec(spec, max_sessions=2)
    if args.raw:
        args.raw.write_text(json.dumps(result.to_dict()))
    predictor, report = fit_and_report(
        rows_of(result, "n"),
        rows_of(result, "h"),
        shape=MINILM,
        workload=workload,
        noise_floor=result.session.noise_floor,
    )
    full = [SubnetConfig.full(MINILM, precision) for precision in ("fp32", "int8")]
    report_result(
        "predictor",
        {
            "workload": workload.to_dict(),
            "wall_s": time.monotonic() - started,
            "fit": report.to_dict(),
            "session": asdict(result.session),
            "reference_ms": result.reference.median_ms,
            "full_ms": dict(zip(("fp32", "int8"), predictor.predict(full).mean_ms, strict=True)),
            "explained": {subnet.precision: predictor.explain(subnet) for subnet in full},
        },
        keep=not result.session.noisy,
    )
    return int(result.session.noisy)


if __name__ == "__main__":
    raise SystemExit(main())
