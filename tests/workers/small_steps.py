"""Handlers of a two-step job that notes what it does; workers load them by name."""

from __future__ import annotations

import os
import time
from pathlib import Path

from service.jobs.evaluations import Evaluation
from service.steps.step_types import NewStep, StepResult
from workers.context import JobContext

HANDLERS = {
    "first": "tests.workers.small_steps:first",
    "second": "tests.workers.small_steps:second",
    "poison": "tests.workers.small_steps:poison",
}


def first(ctx: JobContext) -> StepResult:
    note(ctx, "begin")
    ctx.stage("prepare")
    for index in range(3):
        ctx.record_evaluation(make_evaluation(index))
        note(ctx, f"evaluation-{index}")
        wait_for_gate(ctx)
    note(ctx, "end")
    return StepResult(output={"pid": os.getpid()}, next=NewStep(kind="second", input={"n": 1}))


def second(ctx: JobContext) -> StepResult:
    note(ctx, "begin")
    ctx.stage("report")
    note(ctx, "end")
    return StepResult(result={"num_evaluations": len(ctx.evaluations())})


def poison(ctx: JobContext) -> StepResult:
    note(ctx, "begin")
    os._exit(7)


def wait_for_gate(ctx: JobContext) -> None:
    """While the test keeps the file `gate` there, wait: so that it can kill in the middle."""
    while (ctx.settings.data_dir / "gate").exists():
        ctx.check_abort()
        time.sleep(0.02)


def note(ctx: JobContext, what: str) -> None:
    with log_path(ctx.settings.data_dir).open("a") as file:
        file.write(f"{ctx.step_id} {ctx.attempt} {os.getpid()} {what}\n")


def log_path(data_dir: Path) -> Path:
    return data_dir / "steps.log"


def read_log(data_dir: Path) -> list[tuple[str, int, int, str]]:
    """Lines of (step id, attempt, process id, what)."""
    if not log_path(data_dir).exists():
        return []
    lines = [line.split() for line in log_path(data_dir).read_text().splitlines()]
    return [(step, int(attempt), int(pid), what) for step, attempt, pid, what in lines]


def make_evaluation(index: int) -> Evaluation:
    return Evaluation(
        source="search",
        generation=0,
        index_in_generation=index,
        fingerprint=f"f{index}",
        fidelity="600",
        subnet={"layers": [0]},
        metrics={"quality": 0.5 + index / 10},
        genotype={"num_layers": index},
    )
