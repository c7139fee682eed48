"""One complete small job for every family of models, on real data, from file to measured winner.

An encoder (MiniLM) classifies sentences and embeds them, a GPT trained here on Python's own
modules predicts the next token, ViTs trained here read digits and, where Debian's package
dataset-fashion-mnist is installed, pictures of clothes. Each is trained, searched for half and a
quarter of its latency on this machine, distilled, exported, compared with its file, and measured.

python -m benchmarks.families [--family encoder decoder ...] [--quick]
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import report_result
from benchmarks.pipeline import run_job
from benchmarks.small_jobs import FASHION, JOBS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--family", nargs="+", choices=list(JOBS), help="all that have their data")
    parser.add_argument("--quick", action="store_true", help="minutes; nothing kept")
    parser.add_argument("--resume", action="store_true", help="keep the families that are done")
    parser.add_argument("--threads", type=int, default=1, help="of training; measured is with 1")
    parser.add_argument("--fashion-mnist", type=Path, default=FASHION, metavar="DIR")
    parser.add_argument("--work", type=Path, default=Path(".snugnet/families"), metavar="DIR")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    figures: dict[str, Any] = {}
    for name in args.family or _available(args.fashion_mnist):
        folder = args.work / name
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / "figures.json"
        if not (args.resume and kept.is_file()):
            given = {"source": args.fashion_mnist} if name == "fashion" else {}
            job = JOBS[name](folder, is_quick=args.quick, **given)
            kept.write_text(json.dumps(run_job(job, partial(_say, name))))
        figures[name] = json.loads(kept.read_text())
        _show(name, figures[name])
    is_whole = not args.quick and args.family is None
    figures["minutes"] = round((time.perf_counter() - start) / 60, 1)
    report_result("families", figures, keep=is_whole)
    return 0


def _available(fashion: Path) -> list[str]:
    return [name for name in JOBS if name != "fashion" or fashion.is_dir()]


def _say(name: str, what: str) -> None:
    print(f"[{name}] {what}", flush=True)


def _show(name: str, figures: dict[str, Any]) -> None:
    print(f"\n{name}: {figures['seconds']['all']:.0f} s")
    print(f"{'network':<16}{'quality':>20}{'p50 ms':>9}{'x':>6}{'FLOPs':>8}{'MB':>8}")
    original = figures["networks"]["original"]
    for network, found in figures["networks"].items():
        share = found["flops"] / original["flops"]
        print(
            f"{network:<16}{found['shown']:>20}{found['p50_ms']:>9.3f}{found['speedup']:>6.2f}"
            f"{share:>8.1%}{found['size_bytes'] / 1e6:>8.2f}"
        )
    print(flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
