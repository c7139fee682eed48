"""Write winners in the further formats that a job asks for, one of one winner a step.

None of them is what was promised: one that fails is told as a warning, and the job goes on.
"""

from __future__ import annotations

from importlib.metadata import version

from search.errors import InvalidInput
from search.export.errors import ExportFailed
from search.export.formats import FORMATS, FormatName
from search.export.writers import Exported, Subject, export
from search.training.evaluate import few
from service.steps.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.data import set_threads
from workers.steps.network import network_of, rows_for
from workers.steps.state import ExportRecord, State, Target

PARITY_ROWS = 128
# Of the attempts that a step has: one more than a restarted worker needs.
MAX_TRIES = 2


def run(ctx: JobContext) -> StepResult:
    ctx.stage("finish")
    set_threads(ctx)
    state = State.parse(ctx.input)
    missing = _first_missing(ctx, state)
    if missing is not None:
        index, name = missing
        target = state.targets[index]
        record = _written(ctx, state, target, name)
        _tell(ctx, index, record)
        state = state.with_target(target.updated(exports=(*target.exports, record)), index)
    return StepResult(next=next_step(ctx, state))


def next_step(ctx: JobContext, state: State) -> NewStep:
    """When every file is measured: formats that are still to be written, then how files hold."""
    kind = "robustness" if _first_missing(ctx, state) is None else "export"
    return NewStep(kind=kind, input=state.dump())


def _first_missing(ctx: JobContext, state: State) -> tuple[int, FormatName] | None:
    """A target's place, and a format that was neither written for it nor given up."""
    for index, target in enumerate(state.targets):
        done = {record.format for record in target.exports}
        for name in ctx.spec.exports:
            if target.onnx is not None and name not in done:
                return index, name
    return None


def _written(ctx: JobContext, state: State, target: Target, name: FormatName) -> ExportRecord:
    if ctx.attempt > MAX_TRIES:
        error = f"given up: {MAX_TRIES} tries failed or did not end in time"
        return ExportRecord(format=name, error=error)
    network = network_of(ctx, state, target)
    rows = rows_for(ctx, state, network, state.blobs.validation)
    subject = Subject(
        model=network.model,
        calibration=rows_for(ctx, state, network, state.blobs.train),
        judged=few(rows, network.model.shape, PARITY_ROWS),
        seconds=ctx.settings.step_limit_seconds / 2,
    )
    try:
        found = export(name, subject, ctx.scratch)
    except (ExportFailed, InvalidInput) as error:
        return ExportRecord(format=name, error=str(error))
    return _record(ctx, name, found)


def _record(ctx: JobContext, name: FormatName, found: Exported) -> ExportRecord:
    return ExportRecord(
        format=name,
        files={place: ctx.put_blob(path) for place, path in found.files.items()},
        size_bytes=found.size_bytes,
        precision=found.precision,
        agreement=found.parity.agreement,
        max_error=found.parity.max_error,
        num_rows=found.parity.num_rows,
        note=found.note,
        versions={package: version(package) for package in FORMATS[name].packages},
    )


def _tell(ctx: JobContext, index: int, record: ExportRecord) -> None:
    what = f"target {index} as {record.format}"
    data = {"target": index, "format": record.format}
    if record.error:
        ctx.event("export", f"{what}: not written: {record.error}", data, level="warning")
        return
    told = f"{what}: {record.size_bytes} bytes, {record.agreement:.1%} of answers alike"
    ctx.event("export", told + (f"; {record.note}" if record.note else ""), data)
