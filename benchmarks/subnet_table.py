"""A real supernet with every network of its space evaluated: the truth that a search looks for.

See benchmarks/data/README.md for how the committed table was made.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.common import MINILM
from benchmarks.latency_sessions import DATA as LATENCIES
from benchmarks.latency_sessions import MACS_PER_BYTE, read_sessions
from predictors.key import PredictorKey
from predictors.predictor import LatencyPredictor
from predictors.workload import Workload
from predictors.workload_predictor import WorkloadPredictor
from search.space import PRECISIONS, SearchSpace, SubnetConfig

TABLE = Path(__file__).parent / "data" / "minilm_subnets.csv"
COLUMNS = ("precision", "layers", "num_heads", "ffn_dim", "num_right", "num_rows", "loss")
WORKLOAD = Workload(phase="encode", batch_size=1, seq_len=32, runtime="onnxruntime", threads=1)
LATENCY_SESSIONS = {precision: f"onnxruntime-{precision}-t1-b1-s32-c0" for precision in PRECISIONS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One network of the table: of `num_rows` texts it answers `num_right` rightly."""

    subnet: SubnetConfig
    num_right: int
    num_rows: int
    loss: float

    @property
    def quality(self) -> float:
        return self.num_right / self.num_rows


class SubnetTable:
    """Every network of a space with its quality: an evaluation that costs nothing."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        """Raises: ValueError when the networks are not all of one space."""
        self.entries = tuple(entries)
        self._by_fingerprint = {entry.subnet.fingerprint: entry for entry in entries}
        if self.space.num_networks != len(self._by_fingerprint):
            raise ValueError(
                f"{len(self._by_fingerprint)} networks are not all of a space of "
                f"{self.space.num_networks}"
            )

    @classmethod
    def load(cls, path: Path) -> SubnetTable:
        with path.open(newline="") as file:
            return cls([_parse(line) for line in csv.DictReader(file)])

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, subnet: SubnetConfig) -> Entry:
        return self._by_fingerprint[subnet.fingerprint]

    @cached_property
    def space(self) -> SearchSpace:
        """The space of the table's networks; layers that none of them keeps come last."""
        subnets = [entry.subnet for entry in self.entries]
        kept = {subnet.num_layers: subnet.layers for subnet in subnets}
        order = dict.fromkeys(layer for depth in sorted(kept) for layer in kept[depth])
        return SearchSpace(
            num_layers=tuple(sorted(kept)),
            num_heads=tuple(sorted({heads for s in subnets for heads in s.num_heads})),
            ffn_dim=tuple(sorted({width for s in subnets for width in s.ffn_dim})),
            precision=tuple(p for p in PRECISIONS if any(s.precision == p for s in subnets)),
            layer_order=(*order, *(n for n in range(MINILM.num_layers) if n not in order)),
        )


def write_table(path: Path, entries: Iterable[Entry]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_line(entry) for entry in entries)


def fit_latencies(path: Path = LATENCIES) -> WorkloadPredictor:
    """Of one thread in ONNX Runtime, from a hundred measured networks of each precision."""
    sessions = read_sessions(path)
    predictors = [
        LatencyPredictor.fit(
            sessions[name], key=_key(precision), shape=MINILM, macs_per_byte=MACS_PER_BYTE
        )
        for precision, name in LATENCY_SESSIONS.items()
    ]
    return WorkloadPredictor(WORKLOAD, predictors)


def _key(precision: str) -> PredictorKey:
    return PredictorKey(
        device_fingerprint="data-set",
        runtime=WORKLOAD.runtime,
        runtime_version="",
        provider=WORKLOAD.provider,
        precision=precision,
        threads=WORKLOAD.threads,
        phase=WORKLOAD.phase,
    )


def _parse(line: Mapping[str, str]) -> Entry:
    layers, num_heads, ffn_dim = (
        tuple(int(value) for value in line[name].split("|"))
        for name in ("layers", "num_heads", "ffn_dim")
    )
    subnet = SubnetConfig(
        layers=layers, num_heads=num_heads, ffn_dim=ffn_dim, precision=line["precision"]
    )
    return Entry(
        subnet=subnet,
        num_right=int(line["num_right"]),
        num_rows=int(line["num_rows"]),
        loss=float(line["loss"]),
    )


def _line(entry: Entry) -> tuple[object, ...]:
    subnet = entry.subnet
    sizes = ("|".join(map(str, s)) for s in (subnet.layers, subnet.num_heads, subnet.ffn_dim))
    return subnet.precision, *sizes, entry.num_right, entry.num_rows, f"{entry.loss:.5f}"
