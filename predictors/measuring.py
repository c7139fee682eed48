"""Runs a measuring spec on this machine: builds or fetches its networks and times them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from predictors.energy import POWERCAP, EnergyCounter
from predictors.measurement import Measurement
from predictors.memory import check_memory, groups_that_fit
from predictors.peaks import measure_peaks
from predictors.probe import available_bytes, probe_device, probe_environment, probe_load
from predictors.protocol import EXTRA_ROUNDS, Measurer, Runnable
from predictors.runtimes.base import Network, Runtime
from predictors.runtimes.registry import load_runtime
from predictors.session import Session, keep_quietest, merge_sessions
from predictors.spec import MeasuringResult, MeasuringSpec, NetworkSpec, SessionSummary
from search.errors import InvalidInput

FetchBlob = Callable[[str, Path], None]


def run_measuring_spec(
    spec: MeasuringSpec,
    *,
    fetch_blob: FetchBlob | None = None,
    scratch: Path | None = None,
    should_abort: Callable[[], bool] = lambda: False,
    max_sessions: int = 1,
    extra_rounds: int = EXTRA_ROUNDS,
    powercap: Path = POWERCAP,
) -> MeasuringResult:
    """Builds every network once, then measures; the quietest of up to `max_sessions` counts.

    Args:
        fetch_blob: writes the file of a SHA-256 to a path; needed when the spec names blobs.
        scratch: where networks are written until they are loaded.
        max_sessions: how often a noisy session is tried in all.
        extra_rounds: at most, for networks whose median is not exact after `spec.rounds`.
        powercap: folder of energy counters; no energy is measured where there are none.

    Raises:
        SpecTooLarge: before anything is built.
        RuntimeMissing: this machine lacks the workload's runtime or provider.
        LoadingFailed: the runtime does not accept a network.
        MeasuringAborted: `should_abort` said so.
    """
    runtime = load_runtime(spec.workload.runtime)
    memory_bytes = available_bytes()
    check_memory(spec, memory_bytes)
    Measurer.check(should_abort)
    before = probe_environment()
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        peaks = measure_peaks(runtime, spec.workload, Path(folder))
        bench = _Bench(
            spec=spec,
            runtime=runtime,
            folder=Path(folder),
            fetch_blob=fetch_blob,
            should_abort=should_abort,
            max_sessions=max_sessions,
            extra_rounds=extra_rounds,
            energy=EnergyCounter.find(powercap),
        )
        session = bench.measure(groups_that_fit(spec, memory_bytes))
    return MeasuringResult(
        environment=_environment(before, powercap),
        session=SessionSummary.of(session),
        peaks=peaks,
        anchors=_with_subnets(session.anchors, spec.anchors),
        measurements=_with_subnets(session.measurements, spec.networks),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bench:
    """The networks of one spec, loaded group by group beside the anchors."""

    spec: MeasuringSpec
    runtime: Runtime
    folder: Path
    fetch_blob: FetchBlob | None
    should_abort: Callable[[], bool]
    max_sessions: int
    extra_rounds: int
    energy: EnergyCounter | None

    def measure(self, groups: Sequence[Sequence[NetworkSpec]]) -> Session:
        """Every group under the normal that the first one set."""
        anchors = self._load(self.spec.anchors)
        sessions: list[Session] = []
        for group in groups:
            networks = self._load(group)
            normal = {a.key: a.raw_median_ms for a in sessions[0].anchors} if sessions else None
            seed = self.spec.seed + self.max_sessions * len(sessions)
            sessions.append(self._measure_quietly(anchors, networks, normal, seed))
        return merge_sessions(sessions)

    def _measure_quietly(
        self,
        anchors: Mapping[str, Runnable],
        networks: Mapping[str, Runnable],
        normal_ms: Mapping[str, float] | None,
        seed: int,
    ) -> Session:
        tries: list[Session] = []
        while not tries or (tries[-1].is_noisy and len(tries) < self.max_sessions):
            measurer = Measurer(
                anchors,
                repeats=self.spec.repeats,
                seed=seed + len(tries),
                normal_ms=normal_ms,
                extra_rounds=self.extra_rounds,
                should_abort=self.should_abort,
                observe=probe_load,
                energy=self.energy,
            )
            tries.append(measurer.measure(networks, rounds=self.spec.rounds))
        return keep_quietest(tries)

    def _load(self, networks: Sequence[NetworkSpec]) -> dict[str, Runnable]:
        loaded: dict[str, Runnable] = {}
        for network in networks:
            Measurer.check(self.should_abort)
            ready = self._materialise(network)
            loaded[network.key] = self.runtime.load(ready, self.spec.workload)
            if ready.file is not None:
                ready.file.unlink()
        return loaded

    def _materialise(self, network: NetworkSpec) -> Network:
        file = None
        if network.blob is not None:
            if self.fetch_blob is None:
                raise InvalidInput(f"networks.{network.key}.blob", "no files can be fetched here")
            # Not the name of a network that is built.
            file = self.folder / f"{network.key}.blob.onnx"
            self.fetch_blob(network.blob, file)
        shape = self.spec.shape
        if network.vocab_size is not None:
            shape = replace(shape, vocab_size=min(shape.vocab_size, network.vocab_size))
        return Network(
            key=network.key,
            shape=shape,
            subnet=network.subnet,
            folder=self.folder,
            file=file,
        )


def _with_subnets(
    measurements: Sequence[Measurement], networks: Sequence[NetworkSpec]
) -> tuple[Measurement, ...]:
    subnets = {network.key: network.subnet for network in networks}
    return tuple(replace(m, subnet=subnets[m.key]) for m in measurements)


def _environment(before: Mapping[str, Any], powercap: Path) -> dict[str, Any]:
    device = probe_device(powercap).to_dict()
    return {"device": device, "before": before, "after": probe_environment()}
