"""Measures the files of a finished demo again, in this process, and holds them to their budgets.

Run `make demo` first. Figures of a session that is too noisy are printed but not kept.

python -m benchmarks.contract [--output demo-output]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.common import MINILM, report_result
from predictors.measuring import run_measuring_spec
from predictors.spec import REFERENCE_KEY, MeasuringResult, MeasuringSpec, NetworkSpec
from predictors.workload import Workload

KEPT_FIGURES = (
    "budget_ms",
    "budget_ratio",
    "predicted_ms",
    "p50_ms",
    "p95_ms",
    "quality",
    "quality_kept",
    "speedup",
    "size_bytes",
    "params",
    "repairs",
    "subnet",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    folder = parser.parse_args().output
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    result = _measure(folder, report)
    targets = [_target(i, target, result) for i, target in enumerate(report["targets"])]
    summary = ("quality", "p50_ms", "p95_ms", "size_bytes", "params")
    figures = {
        "workload": report["workload"],
        "wall_s": report["wall_s"],
        "noisy": result.session.noisy,
        "noise_floor": result.session.noise_floor,
        "kept_all": all(target["is_kept"] for target in targets),
        "baseline": {key: report["baseline"][key] for key in summary}
        | {"remeasured_p50_ms": result.reference.median_ms},
        "quantized_only": {key: report["quantized_only"][key] for key in summary},
        "targets": targets,
        "search": {k: v for k, v in report["search"].items() if not isinstance(v, list | dict)},
        "predictor": report["predictor"],
    }
    report_result("contract", figures, keep=not result.session.noisy)
    return 0 if figures["kept_all"] else 1


def _measure(folder: Path, report: dict[str, Any]) -> MeasuringResult:
    """Every file beside the unsearched model, interleaved."""
    parts = {REFERENCE_KEY: report["baseline"]}
    parts |= {f"t{i}": target for i, target in enumerate(report["targets"])}
    files = {part["sha256"]: part["onnx"] for part in parts.values()}
    specs = [NetworkSpec(key=key, blob=part["sha256"]) for key, part in parts.items()]
    spec = MeasuringSpec(
        workload=Workload.from_dict(report["workload"]),
        shape=MINILM,
        reference=specs[0],
        networks=tuple(specs[1:]),
        rounds=15,
        repeats=10,
    )

    def fetch(sha256: str, path: Path) -> None:
        shutil.copyfile(folder / files[sha256], path)

    return run_measuring_spec(spec, fetch_blob=fetch, max_sessions=3)


def _target(index: int, target: dict[str, Any], result: MeasuringResult) -> dict[str, Any]:
    """A ratio is held against the unsearched model of the same session, as the job did."""
    p50_ms = result.measurement(f"t{index}").median_ms
    ratio = p50_ms / result.reference.median_ms
    is_kept = p50_ms <= target["budget_ms"]
    if target["budget_ratio"] is not None:
        is_kept = ratio <= target["budget_ratio"]
    return {name: target[name] for name in KEPT_FIGURES} | {
        "remeasured_p50_ms": p50_ms,
        "remeasured_ratio": ratio,
        "is_kept": is_kept,
    }


if __name__ == "__main__":
    raise SystemExit(main())
