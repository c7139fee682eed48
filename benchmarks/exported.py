"""Networks as files: exported, compared with what they were made from, measured and judged."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from predictors.measuring import run_measuring_spec
from predictors.spec import REFERENCE_KEY, MeasuringResult, MeasuringSpec, NetworkSpec
from predictors.workload import Workload
from search.costs import flops, num_params
from search.export.package import export_onnx
from search.export.parity import check_parity
from search.export.running import evaluate_file
from search.model.transformer import ElasticTransformer
from search.shape import ModelShape
from search.space import SubnetConfig
from search.training.confidence import interval
from search.training.evaluate import few, predict, quality_of
from search.training.rows import Rows
from search.training.tasks import task_of

PARITY_ROWS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedNetwork:
    """`file` answers whole rows, `timed` is the one of the workload: the same but for a decoder.

    `agreement` is the share of answers of the file that are the network's own.
    """

    name: str
    subnet: SubnetConfig
    file: Path
    timed: Path
    agreement: float


def export(
    name: str,
    model: ElasticTransformer,
    subnet: SubnetConfig,
    rows: Rows,
    folder: Path,
    workload: Workload,
) -> ExportedNetwork:
    """Raises: ParityError when the file answers otherwise than the network."""
    subnet = subnet.renumbered()
    path = export_onnx(model, subnet, folder / f"{name}.onnx")
    sample = few(rows, model.shape, PARITY_ROWS)
    expected = predict(model, sample, subnet)
    parity = check_parity(path, sample, expected, model.shape, precision=subnet.precision)
    timed = path
    if workload.phase != "encode":
        timed = folder / f"{name}-{workload.phase}.onnx"
        export_onnx(model, subnet, timed, phase=workload.phase)
    return ExportedNetwork(
        name=name, subnet=subnet, file=path, timed=timed, agreement=parity.agreement
    )


def measure(
    networks: Sequence[ExportedNetwork], shape: ModelShape, workload: Workload, *, seed: int
) -> dict[str, float]:
    """p50 of every file by name, ms, in one session of this machine."""
    result = measure_session(networks, shape, workload, seed=seed)
    return {m.key: m.median_ms for m in result.measurements}


def measure_session(
    networks: Sequence[ExportedNetwork], shape: ModelShape, workload: Workload, *, seed: int
) -> MeasuringResult:
    """Every file by name, and how quiet the machine was."""
    blobs = {_sha256(network.timed): network.timed for network in networks}

    def fetch(sha256: str, path: Path) -> None:
        shutil.copyfile(blobs[sha256], path)

    spec = MeasuringSpec(
        workload=workload,
        shape=shape,
        reference=NetworkSpec(key=REFERENCE_KEY, subnet=SubnetConfig.full(shape)),
        networks=tuple(NetworkSpec(key=n.name, blob=_sha256(n.timed)) for n in networks),
        rounds=9,
        seed=seed,
    )
    return run_measuring_spec(spec, fetch_blob=fetch, max_sessions=3)


def judge(
    networks: Sequence[ExportedNetwork],
    shape: ModelShape,
    workload: Workload,
    latencies_ms: Mapping[str, float],
    rows: Rows,
) -> dict[str, dict[str, Any]]:
    """Figures of every file by name; the intervals of quality hold for all of them at once."""
    task, figures = task_of(shape), {}
    slowest_ms = latencies_ms[networks[0].name]
    for network in networks:
        scores = evaluate_file(network.file, rows, shape)
        quality = quality_of(scores, shape)
        score, count = scores.score.numpy(), scores.count.numpy()
        figures[network.name] = {
            "quality": quality.value,
            "shown": task.show(quality.value),
            "interval": interval(score, count, num_compared=len(networks)).to_dict(),
            "p50_ms": latencies_ms[network.name],
            "speedup": slowest_ms / latencies_ms[network.name],
            "size_bytes": network.file.stat().st_size,
            "params": num_params(shape, network.subnet),
            "flops": flops(shape, network.subnet, seq_len=workload.seq_len),
            "precision": network.subnet.precision,
            "agreement": network.agreement,
        }
    return figures


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
