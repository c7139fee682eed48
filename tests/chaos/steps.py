"""Steps that are quick, and those that behave badly; workers load them by name."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from service.jobs.evaluations import Evaluation
from service.steps.queue import CeleryQueue
from service.steps.step_types import NewArtifact, NewMeasurement, NewStep, StepResult
from tests.service.measuring import measuring_spec
from tests.workers.small_steps import note
from workers.context import JobContext

KINDS = (
    *("link", "stubborn", "patient"),
    *("suicide", "segfault", "greedy", "sleepy", "deaf"),
    *("writer", "limited", "begin", "part", "gather", "conclude_small"),
)
HANDLERS = {kind: f"tests.chaos.steps:{kind}" for kind in KINDS}

EVALUATIONS_OF_LINK = 3
PARTS, EVALUATIONS_OF_PART = 2, 2
GIB = 2**30

COPIES_VARIABLE = "CHAOS_COPIES"


def _send_copies(copies: int) -> None:
    """Every message of this process is sent so many times."""
    send_once = CeleryQueue.enqueue

    def send(queue: CeleryQueue, step_id: str, kind: str) -> bool:
        return all(send_once(queue, step_id, kind) for _ in range(copies))

    CeleryQueue.enqueue = send  # type: ignore[method-assign]


if COPIES_VARIABLE in os.environ:
    _send_copies(int(os.environ[COPIES_VARIABLE]))


# --- steps that do their work -----------------------------------------------------------------


def link(ctx: JobContext) -> StepResult:
    """One of a chain of `total`: evaluations and a file each, and a little time.

    The last one's result is a digest of all that the chain found.
    """
    number, total = ctx.input["number"], ctx.input["total"]
    ctx.stage(f"link {number}")
    for index in range(EVALUATIONS_OF_LINK):
        ctx.record_evaluation(evaluation("search", number, index))
        ctx.progress(index + 1, EVALUATIONS_OF_LINK, "evaluations")
        work(ctx, ctx.input.get("seconds", 0.2))
    artifact = put(ctx, f"link-{number}", f"link {number} of {ctx.job_id}".encode())
    if number < total:
        after = NewStep(kind="link", input={**ctx.input, "number": number + 1})
        return StepResult(output={"pid": os.getpid()}, next=after, artifacts=[artifact])
    return StepResult(result={"digest": digest(ctx.evaluations())}, artifacts=[artifact])


def stubborn(ctx: JobContext) -> StepResult:
    """Looks at no wish to stop; the first attempt waits while the gate is there."""
    note(ctx, "begin")
    while ctx.attempt == 1 and gate(ctx).exists():
        time.sleep(0.02)
    note(ctx, "end")
    return StepResult(result={"attempt": ctx.attempt})


def patient(ctx: JobContext) -> StepResult:
    """Waits while the gate is there."""
    note(ctx, "begin")
    while gate(ctx).exists():
        work(ctx, 0.02)
    note(ctx, "end")
    return StepResult(result={})


# --- steps that do harm -----------------------------------------------------------------------


def suicide(ctx: JobContext) -> StepResult:
    note(ctx, "begin")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def segfault(ctx: JobContext) -> StepResult:
    note(ctx, "begin")
    ctypes.string_at(0)
    raise AssertionError("still alive")


def greedy(ctx: JobContext) -> StepResult:
    """Wants more memory than it may have; what comes after it in this process may have it."""
    note(ctx, "begin")
    before = resource.getrlimit(resource.RLIMIT_AS)
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + GIB // 8, before[1]))
    try:
        return StepResult(result={"size_bytes": len(bytearray(GIB))})
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def sleepy(ctx: JobContext) -> StepResult:
    """Takes longer than a step may."""
    note(ctx, "begin")
    time.sleep(300)
    raise AssertionError("never stopped")


def deaf(ctx: JobContext) -> StepResult:
    """The same, and it does not even hear of it."""
    note(ctx, "begin")
    while True:
        try:
            time.sleep(300)
        except SoftTimeLimitExceeded:
            note(ctx, "told-to-stop")


def writer(ctx: JobContext) -> StepResult:
    """Stores files of a size, named in the input, one evaluation with each."""
    for number in range(ctx.input["files"]):
        path = ctx.scratch / f"{number}.bin"
        path.write_bytes(bytes([number]) * ctx.input["size_bytes"])
        ctx.put_blob(path)
        ctx.record_evaluation(evaluation("search", 0, number))
    return StepResult(result={})


def limited(ctx: JobContext) -> StepResult:
    """Stores a file that this process may not write, until the limit is lifted."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = ctx.scratch / "file.bin"
    path.write_bytes(bytes(ctx.input["size_bytes"]))
    if not (ctx.settings.data_dir / "limit-lifted").exists():
        resource.setrlimit(resource.RLIMIT_FSIZE, (ctx.input["limit_bytes"], before[1]))
    try:
        ctx.put_blob(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return StepResult(result={})


# --- the small job of the soak ----------------------------------------------------------------


def begin(ctx: JobContext) -> StepResult:
    """As the first step of a job that was submitted over HTTP."""
    ctx.stage("parts")
    parts = [NewStep(kind="part", input={"part": part}) for part in range(PARTS)]
    return StepResult(next=NewStep(kind="gather"), parts=parts)


def part(ctx: JobContext) -> StepResult:
    number = ctx.input["part"]
    for index in range(EVALUATIONS_OF_PART):
        ctx.record_evaluation(evaluation("search", 0, number * EVALUATIONS_OF_PART + index))
        work(ctx, 0.05)  # so that it may be hit
    name = f"part-{number}"
    return StepResult(artifacts=[put(ctx, name, f"{name} of {ctx.job_id}".encode())])


def gather(ctx: JobContext) -> StepResult:
    ctx.stage("measuring")
    found = len(ctx.evaluations())
    assert found == PARTS * EVALUATIONS_OF_PART, f"{found} evaluations"
    measurement = NewMeasurement(
        device_id=ctx.device("this-cpu").id,
        spec=measuring_spec().to_dict(),
        then=NewStep(kind="conclude_small"),
    )
    return StepResult(next=measurement)


def conclude_small(ctx: JobContext) -> StepResult:
    ctx.stage("report")
    measured = ctx.measurement(ctx.input["measurement_job_id"])
    report = {"networks": len(measured["measurements"]), "digest": digest(ctx.evaluations())}
    artifact = put(ctx, "report.json", json.dumps([ctx.job_id, report]).encode())
    return StepResult(result=report, artifacts=[artifact])


# ----------------------------------------------------------------------------------------------


def work(ctx: JobContext, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ctx.check_abort()
        time.sleep(0.01)


def gate(ctx: JobContext) -> Path:
    return ctx.settings.data_dir / "gate"


def put(ctx: JobContext, name: str, content: bytes) -> NewArtifact:
    path = ctx.scratch / name
    path.write_bytes(content)
    return NewArtifact(
        name=name,
        sha256=ctx.put_blob(path),
        size_bytes=len(content),
        media_type="application/octet-stream",
    )


def evaluation(source: str, generation: int, index: int) -> Evaluation:
    fingerprint = f"{generation}/{index}"
    quality = int(hashlib.sha256(fingerprint.encode()).hexdigest()[:8], 16) / 2**32
    return Evaluation(
        source=source,
        generation=generation,
        index_in_generation=index,
        fingerprint=fingerprint,
        fidelity="all",
        subnet={"layers": [index]},
        metrics={"quality": quality},
    )


def digest(found: list[Evaluation]) -> str:
    """Equal for equal evaluations, in whatever order they were made."""
    rows: list[Any] = sorted(
        [e.source, e.generation, e.index_in_generation, e.subnet, e.metrics] for e in found
    )
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
