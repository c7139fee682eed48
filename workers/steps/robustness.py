"""How the answers of every delivered file hold, and of those between a recipe's stages: a few
measures a step, until each has been taken.

The unsearched fp32 file is the teacher that the others are held against.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from search.compress.vocabulary import with_vocabulary
from search.errors import InvalidInput
from search.export.errors import ExportFailed
from search.export.running import OnnxNetwork
from search.model.transformer import Batch
from search.robustness.probe import ImageProbe, Probe, TextProbe
from search.robustness.report import MEASURES, Subject, affordable_rows
from search.robustness.sample import Sample
from search.training.encoding import TextReader, load_tokenizer
from search.training.evaluate import Network
from search.training.image_rows import ImageRows
from service.steps.step_types import MAX_ATTEMPTS, NewStep, StepResult
from workers.context import JobContext
from workers.steps.data import load_rows
from workers.steps.state import State

# The last attempt of a step is there to give up one figure rather than the job.
MAX_TRIES = MAX_ATTEMPTS - 1


def run(ctx: JobContext) -> StepResult:
    ctx.stage("report")
    state = State.parse(ctx.input)
    missing = list(_missing(ctx, state))
    if not missing:
        return _then("report", state)
    examiner = Examiner(ctx, state)
    # Alone in the step, a measure that fails is not taken for another one.
    deadline = time.monotonic() + (ctx.settings.step_seconds if ctx.attempt == 1 else 0)
    for sha256, name in missing:
        found = _found(ctx, examiner, sha256, name)
        of_file = {**state.robustness.get(sha256, {}), name: found}
        state = state.updated(robustness={**state.robustness, sha256: of_file})
        ctx.progress(_num_found(state), len(MEASURES) * len(state.examined_files), "measures")
        if time.monotonic() >= deadline:
            break
    return _then("robustness" if list(_missing(ctx, state)) else "report", state)


class Examiner:
    """Takes measures of files; whatever it asks a network, it first asks whether to stop.

    Raises:
        StepAborted: the step is to stop; what it has measured is dropped.
    """

    def __init__(self, ctx: JobContext, state: State) -> None:
        assert state.baseline_onnx is not None
        self._ctx, self._state = ctx, state
        self._teacher = state.baseline_onnx
        self._open: dict[str, Network] = {self._teacher: self._network(ctx.blob(self._teacher))}
        self._probe = _probe(ctx, state, self._open[self._teacher])

    def measure(self, sha256: str, name: str) -> dict[str, Any] | None:
        """What a measure found of a file; None where it says nothing of such a network."""
        probe = self._probe_of(sha256)
        subject = Subject(
            network=self._network_of(sha256),
            probe=probe,
            seed=self._ctx.seed,
            path=self._ctx.blob(sha256),
            teacher=None if sha256 == self._teacher else self._open[self._teacher],
            teacher_probe=None if probe is self._probe else self._probe,
            open_model=self._network,
        )
        found = MEASURES[name](subject)
        return None if found is None else found.to_dict()

    def _probe_of(self, sha256: str) -> Probe:
        """The same inputs for every file, in the words that it knows."""
        vocabulary = self._state.vocabularies.get(sha256)
        if vocabulary is None:
            return self._probe
        assert isinstance(self._probe, TextProbe)
        tokenizer = load_tokenizer(self._ctx.blob(vocabulary.reader))
        shape = with_vocabulary(self._probe.shape, vocabulary.size)
        return self._probe.read_by(replace(self._probe.reader, tokenizer=tokenizer, shape=shape))

    def _network_of(self, sha256: str) -> Network:
        """No more than the teacher's file and one other are open."""
        if sha256 not in self._open:
            teacher = self._open[self._teacher]
            self._open = {
                self._teacher: teacher,
                sha256: self._network(self._ctx.blob(sha256)),
            }
        return self._open[sha256]

    def _network(self, model: Path | bytes) -> Network:
        network = OnnxNetwork(model)

        def answer(batch: Batch) -> Tensor:
            self._ctx.check_abort()
            return network(batch)

        return answer


def _found(ctx: JobContext, examiner: Examiner, sha256: str, name: str) -> dict[str, Any] | None:
    """A figure that cannot be had is told as a warning: the files were promised, not this."""
    error = f"given up: {MAX_TRIES} tries failed or did not end in time"
    if ctx.attempt <= MAX_TRIES:
        try:
            return examiner.measure(sha256, name)
        except (ExportFailed, InvalidInput) as failure:
            error = str(failure)
    data = {"file": sha256, "measure": name}
    ctx.event("robustness", f"{name} of {sha256[:12]}: {error}", data, level="warning")
    return {"error": error}


def _missing(ctx: JobContext, state: State) -> Iterator[tuple[str, str]]:
    """File and measure of what is still to be found."""
    has_texts = state.model_shape.reads_images or state.blobs.sample is not None
    # An earlier version of Snugnet that trained the supernet kept no texts.
    if ctx.spec.robustness.rows == 0 or not has_texts:
        return
    for sha256 in state.examined_files:
        known = state.robustness.get(sha256, {})
        yield from ((sha256, name) for name in MEASURES if name not in known)


def _num_found(state: State) -> int:
    return sum(map(len, state.robustness.values()))


def _probe(ctx: JobContext, state: State, teacher: Network) -> Probe:
    """As many rows of the test split as can be afforded, the same for every file."""
    shape, test = state.model_shape, load_rows(ctx, state.blobs.test)
    seq_len = round(float(test.lengths.double().mean()))
    num_rows = affordable_rows(shape, seq_len, ctx.spec.robustness.rows)
    if isinstance(test, ImageRows):
        return ImageProbe(shape=shape, rows=test.spread(num_rows))
    assert state.blobs.sample is not None
    tokenizer = load_tokenizer(ctx.blob(state.blobs.reader))
    reader = TextReader(tokenizer, shape, ctx.spec.training.max_seq_len)
    sample = Sample.load(ctx.blob(state.blobs.sample))
    return TextProbe.of(sample.spread(num_rows), reader, teacher)


def _then(kind: str, state: State) -> StepResult:
    return StepResult(next=NewStep(kind=kind, input=state.dump()))
