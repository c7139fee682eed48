"""What compression techniques do alone, in pairs and in which order, for three families of models.

Every recipe that trains does so for as many steps; every network is judged by its file on the
test split, beside the original on the same rows; all files of a family are timed in one session on
one thread of this machine. Networks that a search found in a supernet are compared with them: for
those the supernet is trained besides, once. What was done stays in the state's folder, and a run
that was stopped goes on from there.

python -m benchmarks.combinations [--quick] [--only bert vit decoder] [--from-results]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.combinations_page import write_page
from benchmarks.common import RESULTS, report_result
from benchmarks.delivered import Delivered, compared, deliver, time_all
from benchmarks.found_subnets import AGNOSTIC, JOINT, LATENCY, Searched, searched
from benchmarks.recipe_runs import RecipeRuns
from benchmarks.subjects import SUBJECTS, Subject, prepare
from benchmarks.techniques import (
    DISTIL,
    INT8,
    Technique,
    techniques,
    within_budget,
)
from search.compress.network import Compressed
from search.errors import InvalidInput
from search.training.tasks import task_of

STATE = Path(".snugnet/combinations")
PAGE = Path("docs/combinations.md")
ORIGINAL = "the original"
QUICK_EVERY = 3
FOUND = (
    (LATENCY, Technique("search", "searched by latency, distil", (DISTIL,))),
    (LATENCY, Technique("search", "searched by latency, distil, quantize", (DISTIL, INT8))),
    (AGNOSTIC, Technique("search", "searched by FLOPs, distil", (DISTIL,))),
    (AGNOSTIC, Technique("search", "searched by FLOPs, distil, quantize", (DISTIL, INT8))),
    (JOINT, Technique("search", "precision searched too, distil", (DISTIL,))),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """A recipe and what became of it.

    Attributes:
        reports: of its stages.
        delivered: None where the recipe does not fit; `refused` then says why.
    """

    technique: Technique
    reports: tuple[dict[str, Any], ...] = ()
    delivered: Delivered | None = None
    refused: str | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="little of everything, nothing kept")
    parser.add_argument("--only", nargs="+", choices=list(SUBJECTS), help="some of the families")
    parser.add_argument("--from-results", action="store_true", help="only write the page anew")
    parser.add_argument("--state", type=Path, metavar="DIR", help="of what was done so far")
    parser.add_argument("--threads", type=int, default=2, help="of training; measured is with 1")
    arguments = parser.parse_args()
    if arguments.from_results:
        write_page(json.loads((RESULTS / "combinations.json").read_text()), PAGE)
        return 0
    torch.set_num_threads(arguments.threads)
    is_quick = arguments.quick
    state = arguments.state or STATE.with_name(f"{STATE.name}{'-quick' * is_quick}")
    start = time.perf_counter()
    names = arguments.only or list(SUBJECTS)
    families = {n: family_figures(n, state / n, is_quick=is_quick) for n in names}
    minutes = round((time.perf_counter() - start) / 60, 1)
    figures = {"families": families, "minutes_of_this_run": minutes}
    is_kept = not is_quick and arguments.only is None
    report_result("combinations", figures, keep=is_kept)
    write_page(figures, PAGE if is_kept else state / PAGE.name)
    return 0


def family_figures(name: str, state: Path, *, is_quick: bool) -> dict[str, Any]:
    """Plain data: the original, and every recipe that the family takes."""
    subject = prepare(name, state, is_quick=is_quick)
    found = searched(subject, state)
    original = deliver(
        ORIGINAL, subject.whole, subject, state / "files" / "whole", splits=("test",)
    )
    tried = list(_tried(subject, found, state, every=QUICK_EVERY if is_quick else 1))
    delivered = [original, *(one.delivered for one in tried if one.delivered)]
    timed = time_all(delivered, subject)
    return {
        "task": subject.shape.task,
        "metric": task_of(subject.shape).metric,
        "rows": {split: len(rows) for split, rows in subject.rows.items()},
        "workload": subject.job.workload.to_dict(),
        "steps_of_a_recipe": subject.data.num_steps(subject.effort.distill_epochs),
        "searched": found.figures,
        "session": timed.session,
        "original": _figures(original, original, subject, timed.latencies_ms),
        "recipes": [_described(one, original, subject, timed.latencies_ms) for one in tried],
    }


def _tried(subject: Subject, found: Searched, state: Path, *, every: int) -> Iterator[Tried]:
    """Recipes, run and delivered: all, or one of so many."""
    for technique in techniques(subject.shape)[::every]:
        yield _one(technique, subject.whole, subject, state)
    for winner, technique in FOUND:
        if winner in found.winners:
            yield _one(technique, found.winners[winner], subject, state)


def _one(technique: Technique, network: Compressed, subject: Subject, state: Path) -> Tried:
    effort = subject.effort
    stages = within_budget(
        technique.stages, epochs=effort.distill_epochs, learning_rate=effort.learning_rate
    )
    try:
        ran = RecipeRuns(network, subject.data_of(stages), state / "stages").run(stages)
    except InvalidInput as error:
        _say(subject, f"{technique.name}: {error}")
        return Tried(technique=technique, refused=str(error))
    folder = state / "files" / ran.key
    delivered = deliver(technique.name, ran.network, subject, folder, splits=("test",))
    quality = float(delivered.scores["test"].sum() / delivered.counts["test"].sum())
    _say(subject, f"{technique.name}: {task_of(subject.shape).show(quality)}, {ran.seconds:.0f} s")
    return Tried(technique=technique, reports=ran.reports, delivered=delivered)


def _described(
    one: Tried, original: Delivered, subject: Subject, latencies_ms: Mapping[str, float]
) -> dict[str, Any]:
    named = {"group": one.technique.group, "name": one.technique.name}
    if one.delivered is None:
        return {**named, "refused": one.refused}
    return {
        **named,
        "stages": list(one.reports),
        "seconds": round(sum(report["seconds"] for report in one.reports), 1),
        **_figures(one.delivered, original, subject, latencies_ms),
    }


def _figures(
    one: Delivered, original: Delivered, subject: Subject, latencies_ms: Mapping[str, float]
) -> dict[str, Any]:
    return {
        **compared(one, original, subject, "test"),
        "p50_ms": latencies_ms[one.name],
        "speedup": latencies_ms[original.name] / latencies_ms[one.name],
        **one.figures,
    }


def _say(subject: Subject, what: str) -> None:
    print(f"[{subject.job.name}] {what}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
