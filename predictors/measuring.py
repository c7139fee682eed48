"""Runs a measuring spec on this machine: builds or fetches its networks and times them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import psutil

from predictors.device import probe_device, probe_environment
from predictors.measurement import Measurement
from predictors.protocol import Measurer, Session, merge_sessions
from predictors.runtime import OnnxRuntimeNetwork
from predictors.spec import (
    SMALL_ANCHOR_KEY,
    MeasuringResult,
    MeasuringSpec,
    NetworkSpec,
    SessionSummary,
)
from search.export.graph import build_onnx
from search.export.quantize import quantize_int8
from search.space import ModelShape, SubnetConfig

# The word table of a network that is only timed: rows are read one by one, so that a table of
# 30,522 rows is as fast as one of 1,000 (measured) and takes a second longer to quantize.
NUM_TIMED_TOKEN_IDS = 1000

# Loaded networks may take this share of the memory that is free. Weights take about twice the
# size of their file: ONNX Runtime packs a copy of them for its kernels.
MEMORY_SHARE = 0.4
MEMORY_PER_FILE_BYTE = 2.2

FetchBlob = Callable[[str, Path], None]


def run_measuring_spec(
    spec: MeasuringSpec,
    *,
    fetch_blob: FetchBlob | None = None,
    scratch: Path | None = None,
    should_abort: Callable[[], bool] = lambda: False,
    max_sessions: int = 1,
) -> MeasuringResult:
    """Builds every network once, then measures; the quietest of up to `max_sessions` counts.

    Args:
        fetch_blob: writes the file of a SHA-256 to a path; needed when the spec names blobs.
        scratch: where networks are written until they are loaded.
        max_sessions: how often a noisy session is tried in all.

    Raises:
        MeasuringAborted: `should_abort` said so.
    """
    before = probe_environment()
    small_anchor = NetworkSpec(key=SMALL_ANCHOR_KEY, subnet=small_anchor_subnet(spec.shape))
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        files = {
            network.key: write_network(network, spec.shape, Path(folder), fetch_blob)
            for network in _until(should_abort, (spec.reference, small_anchor, *spec.networks))
        }
        session = _measure_quietly(spec, files, should_abort, max_sessions)
    return MeasuringResult(
        environment=_environment(before),
        session=SessionSummary.of(session),
        reference=replace(session.anchors[0], subnet=spec.reference.subnet),
        small_anchor=replace(session.anchors[1], subnet=small_anchor.subnet),
        measurements=_with_subnets(session, spec.networks),
    )


def small_anchor_subnet(shape: ModelShape) -> SubnetConfig:
    """A third of the layers at half of the widths, in int8: far from the reference in size."""
    depth = -(-shape.num_layers // 3)
    return SubnetConfig(
        layers=tuple(range(depth)),
        num_heads=(-(-shape.num_heads // 2),) * depth,
        ffn_dim=(-(-shape.ffn_dim // 2),) * depth,
        precision="int8",
    )


def write_network(
    network: NetworkSpec, shape: ModelShape, folder: Path, fetch_blob: FetchBlob | None
) -> Path:
    """The ONNX file of a network, its weights random unless it is fetched."""
    path = folder / f"{network.key}.onnx"
    if network.blob is not None:
        if fetch_blob is None:
            raise ValueError(f"network {network.key!r} is a blob, but none can be fetched")
        fetch_blob(network.blob, path)
        return path
    assert network.subnet is not None
    vocab_size = min(shape.vocab_size, NUM_TIMED_TOKEN_IDS)
    onnx.save(build_onnx(shape, network.subnet, None, vocab_size=vocab_size), path)
    if network.subnet.precision == "int8":
        quantize_int8(path, path, for_timing=True)
    return path


def _until(
    should_abort: Callable[[], bool], networks: Sequence[NetworkSpec]
) -> Iterator[NetworkSpec]:
    for network in networks:
        Measurer.check(should_abort)
        yield network


def _measure_quietly(
    spec: MeasuringSpec,
    files: Mapping[str, Path],
    should_abort: Callable[[], bool],
    max_sessions: int,
) -> Session:
    sessions: list[Session] = []
    while not sessions or (sessions[-1].is_noisy and len(sessions) < max_sessions):
        sessions.append(_measure(spec, files, should_abort, spec.seed + len(sessions)))
    return min(sessions, key=lambda session: session.noise_floor)


def _measure(
    spec: MeasuringSpec, files: Mapping[str, Path], should_abort: Callable[[], bool], seed: int
) -> Session:
    """One session, in groups when not all networks fit into memory; anchors join the groups."""

    def load(key: str) -> OnnxRuntimeNetwork:
        num_ids = min(spec.shape.vocab_size, NUM_TIMED_TOKEN_IDS)
        return OnnxRuntimeNetwork(files[key], spec.workload, num_token_ids=num_ids)

    anchors = {key: load(key) for key in (spec.reference.key, SMALL_ANCHOR_KEY)}
    keys = [network.key for network in spec.networks]
    limit_bytes = int(MEMORY_SHARE * psutil.virtual_memory().available / MEMORY_PER_FILE_BYTE)
    sessions: list[Session] = []
    for group in groups_by_size({key: files[key].stat().st_size for key in keys}, limit_bytes):
        normal = {a.key: a.raw_median_ms for a in sessions[0].anchors} if sessions else None
        measurer = Measurer(
            anchors,
            repeats=spec.repeats,
            seed=seed + len(sessions),
            normal_ms=normal,
            should_abort=should_abort,
        )
        sessions.append(measurer.measure({key: load(key) for key in group}, rounds=spec.rounds))
    return merge_sessions(sessions)


def groups_by_size(sizes_bytes: Mapping[str, int], limit_bytes: int) -> list[list[str]]:
    """Keys in groups of at most `limit_bytes`; a network larger than that is a group alone."""
    groups: list[list[str]] = []
    room = 0
    for key, size in sizes_bytes.items():
        if not groups or size > room:
            groups.append([])
            room = limit_bytes
        groups[-1].append(key)
        room -= size
    return groups


def _with_subnets(session: Session, networks: Sequence[NetworkSpec]) -> tuple[Measurement, ...]:
    subnets = {network.key: network.subnet for network in networks}
    return tuple(replace(m, subnet=subnets[m.key]) for m in session.measurements)


def _environment(before: Mapping[str, Any]) -> dict[str, Any]:
    return {"device": probe_device().to_dict(), "before": before, "after": probe_environment()}
