"""Measures many networks in every runtime, thread count and size of input, into one CSV.

A session is 100 networks under one condition, beside the anchors, by the agent's own protocol.
What is already in the file is skipped, so that a run that was interrupted goes on. The columns are
explained in benchmarks/data/README.md.

python -m benchmarks.latency_dataset [--subnets 200] [--out benchmarks/data/bert_latency.csv]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common import MINILM, commit
from predictors.measurement import Measurement, Samples
from predictors.measuring import run_measuring_spec
from predictors.probe import probe_device
from predictors.runtimes.base import NUM_TIMED_TOKEN_IDS, Network
from predictors.runtimes.onnx_file import onnx_file
from predictors.spec import REFERENCE_KEY, MeasuringResult, MeasuringSpec, NetworkSpec
from predictors.workload import Workload
from search.space import SearchSpace, SubnetConfig

# Word tables cost no time to read from; see predictors/runtimes/base.py.
SHAPE = replace(MINILM, vocab_size=NUM_TIMED_TOKEN_IDS)
SPACE = SearchSpace.for_shape(MINILM)

RUNTIMES = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("torch", "fp32"),
)
THREADS = (1, 2)
BATCH_SIZES = (1, 8)
SEQ_LENS = (32, 128)

CHUNK_SIZE = 100
ROUNDS = 3
REPEATS = 2
UNIFORM_SHARE = 0.2
COLUMNS = (
    *("session", "role", "key", "runtime", "precision", "threads", "batch_size", "seq_len"),
    *("num_heads", "ffn_dim", "median_ms", "p95_ms", "noisy"),
    *("rounds_us", "factors", "reference_us", "discarded_us"),
)
SESSION_COLUMNS = (
    *("session", "at", "runtime", "runtime_version", "provider", "precision", "threads"),
    *("batch_size", "seq_len", "chunk", "seed", "device_fingerprint", "cpu_model", "os", "commit"),
    *("noisy", "noise_floor", "drift", "num_blocks", "retried_blocks", "disturbed_blocks"),
    *("dropped_runs", "duration_s", "steal_s", "load_before", "load_after"),
    *("flops_per_s", "bytes_per_s", "anchor_offsets"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """What all networks of a session share; `name` is what a session is known by in the files."""

    runtime: str
    precision: str
    threads: int
    batch_size: int
    seq_len: int
    chunk: int

    @property
    def name(self) -> str:
        return (
            f"{self.runtime}-{self.precision}-t{self.threads}-b{self.batch_size}"
            f"-s{self.seq_len}-c{self.chunk}"
        )

    @property
    def workload(self) -> Workload:
        return Workload(
            runtime=self.runtime,
            threads=self.threads,
            batch_size=self.batch_size,
            seq_len=self.seq_len,
        )

    @property
    def columns(self) -> dict[str, Any]:
        names = ("runtime", "precision", "threads", "batch_size", "seq_len")
        return {"session": self.name, **{name: getattr(self, name) for name in names}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--subnets", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/data/bert_latency.csv"))
    parser.add_argument("--sessions", type=int, help="stop after this many more")
    args = parser.parse_args()
    files = Files(args.out)
    files.drop_unfinished()
    todo = [
        c for c in conditions(args.subnets, runtimes=RUNTIMES) if c.name not in files.finished()
    ]
    subnets = choose_subnets(args.subnets, args.seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        store = FileStore(Path(folder))
        for condition in todo[: args.sessions]:
            chunk = subnets[condition.chunk * CHUNK_SIZE :][:CHUNK_SIZE]
            result = measure(condition, chunk, store, args.seed)
            files.append(condition, result, args.seed)
            print(_progress(condition, result, time.monotonic() - started), flush=True)
    print(json.dumps(files.summary(), indent=2))
    return 0


def conditions(num_subnets: int, *, runtimes: Sequence[tuple[str, str]]) -> Iterator[Condition]:
    """All of the first chunk before the second: a run that stops early leaves no gaps."""
    for chunk in range(-(-num_subnets // CHUNK_SIZE)):
        for (runtime, precision), threads, batch_size, seq_len in itertools.product(
            runtimes, THREADS, BATCH_SIZES, SEQ_LENS
        ):
            yield Condition(
                runtime=runtime,
                precision=precision,
                threads=threads,
                batch_size=batch_size,
                seq_len=seq_len,
                chunk=chunk,
            )


def choose_subnets(num_subnets: int, seed: int) -> list[SubnetConfig]:
    """The space's extremes, uniform networks spread over it, then random ones; all distinct."""
    rng = random.Random(seed)
    uniform = [subnet for subnet in SPACE.uniform() if subnet.precision == "fp32"]
    chosen = {SPACE.smallest.with_precision("fp32"): None, SPACE.largest: None}
    chosen |= dict.fromkeys(
        rng.sample(uniform, min(len(uniform), int(UNIFORM_SHARE * num_subnets)))
    )
    while len(chosen) < num_subnets:
        chosen[SPACE.sample(rng).with_precision("fp32")] = None
    subnets = list(chosen)[:num_subnets]
    rng.shuffle(subnets)
    return subnets


class FileStore:
    """ONNX files of networks, each built once: quantizing takes longer than measuring."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sha256: dict[SubnetConfig, str] = {}

    def blob(self, subnet: SubnetConfig) -> str:
        if subnet not in self._sha256:
            network = Network(key="new", shape=SHAPE, subnet=subnet, folder=self._folder)
            path = onnx_file(network)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            path.rename(self._folder / sha256)
            self._sha256[subnet] = sha256
        return self._sha256[subnet]

    def fetch(self, sha256: str, path: Path) -> None:
        os.link(self._folder / sha256, path)

    @property
    def folder(self) -> Path:
        return self._folder


def measure(
    condition: Condition, subnets: Sequence[SubnetConfig], store: FileStore, seed: int
) -> MeasuringResult:
    networks = []
    for i, subnet in enumerate(subnets):
        subnet = subnet.with_precision(condition.precision)
        blob = None if condition.runtime == "torch" else store.blob(subnet)
        key = f"n{condition.chunk * CHUNK_SIZE + i:03d}"
        networks.append(NetworkSpec(key=key, subnet=subnet, blob=blob))
    spec = MeasuringSpec(
        workload=condition.workload,
        shape=SHAPE,
        reference=NetworkSpec(key=REFERENCE_KEY, subnet=SubnetConfig.full(SHAPE)),
        networks=tuple(networks),
        rounds=ROUNDS,
        repeats=REPEATS,
        seed=seed,
    )
    return run_measuring_spec(spec, fetch_blob=store.fetch, scratch=store.folder, extra_rounds=0)


class Files:
    """The CSV of measurements, and one of sessions beside it that says which are whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sessions_path = path.with_name(f"{path.stem}_sessions.csv")

    def finished(self) -> set[str]:
        return {row["session"] for row in _read(self._sessions_path)}

    def drop_unfinished(self) -> None:
        """Rows of a session that was cut off while it was written."""
        known = self.finished()
        rows = _read(self._path)
        kept = [row for row in rows if row["session"] in known]
        if len(kept) < len(rows):
            fresh = self._path.with_suffix(".new")
            _append(fresh, COLUMNS, kept)
            fresh.replace(self._path)

    def append(self, condition: Condition, result: MeasuringResult, seed: int) -> None:
        rows = [_row(condition, "anchor", m) for m in result.anchors]
        rows += [_row(condition, "network", m) for m in result.measurements]
        _append(self._path, COLUMNS, rows)
        _append(self._sessions_path, SESSION_COLUMNS, [_session_row(condition, result, seed)])

    def summary(self) -> dict[str, Any]:
        rows, sessions = _read(self._path), _read(self._sessions_path)
        floors = sorted(float(session["noise_floor"]) for session in sessions)
        return {
            "rows": sum(row["role"] == "network" for row in rows),
            "subnets": len({row["key"] for row in rows if row["role"] == "network"}),
            "sessions": len(sessions),
            "noisy_sessions": sum(session["noisy"] == "True" for session in sessions),
            "median_noise_floor": floors[len(floors) // 2] if floors else None,
            "minutes": sum(float(session["duration_s"]) for session in sessions) / 60,
            "bytes": self._path.stat().st_size if self._path.exists() else 0,
        }


def _row(condition: Condition, role: str, measurement: Measurement) -> dict[str, Any]:
    subnet = measurement.subnet
    assert subnet is not None
    return {
        **condition.columns,
        "role": role,
        "key": measurement.key,
        "precision": subnet.precision,
        "num_heads": "|".join(map(str, subnet.num_heads)),
        "ffn_dim": "|".join(map(str, subnet.ffn_dim)),
        "median_ms": f"{measurement.median_ms:.4f}",
        "p95_ms": f"{measurement.p95_ms:.4f}",
        "noisy": measurement.is_noisy,
        "rounds_us": _microseconds(measurement.rounds_ms),
        "factors": "|".join(f"{factor:.4f}" for factor in measurement.factors),
        "reference_us": "" if role == "anchor" else _medians(measurement.reference_ms),
        "discarded_us": _microseconds(measurement.discarded_ms),
    }


def _session_row(condition: Condition, result: MeasuringResult, seed: int) -> dict[str, Any]:
    device, session = probe_device(), result.session
    before, after = result.environment["before"], result.environment["after"]
    names = ("noisy", "noise_floor", "drift", "num_blocks", "retried_blocks", "disturbed_blocks")
    return {
        **condition.columns,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "runtime_version": device.runtime_version(condition.runtime),
        "provider": condition.workload.provider,
        "chunk": condition.chunk,
        "seed": seed,
        "device_fingerprint": device.fingerprint,
        "cpu_model": device.cpu_model,
        "os": device.os,
        "commit": commit(),
        **{name: getattr(session, name) for name in (*names, "dropped_runs", "duration_s")},
        "steal_s": (after["steal_s"] or 0.0) - (before["steal_s"] or 0.0),
        "load_before": before["load"],
        "load_after": after["load"],
        "flops_per_s": result.peaks["flops_per_s"][condition.precision],
        "bytes_per_s": result.peaks["bytes_per_s"],
        "anchor_offsets": "|".join(f"{offset:.4f}" for offset in session.anchor_offsets),
    }


def _microseconds(rounds_ms: Samples) -> str:
    """Runs separated by "|", rounds by ";"."""
    return ";".join("|".join(str(round(1e3 * ms)) for ms in samples) for samples in rounds_ms)


def _medians(rounds_ms: Samples) -> str:
    return "|".join(str(round(1e3 * sorted(s)[len(s) // 2])) for s in rounds_ms)


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _append(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def _progress(condition: Condition, result: MeasuringResult, elapsed_s: float) -> str:
    session = result.session
    noise = f"noise {session.noise_floor:.2%}" + (", noisy" if session.noisy else "")
    return (
        f"{elapsed_s / 60:6.1f} min  {condition.name}: {session.duration_s:.1f} s, {noise}, "
        f"{session.retried_blocks} of {len(session.blocks)} blocks thrown away"
    )


if __name__ == "__main__":
    raise SystemExit(main())
