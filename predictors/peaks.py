"""What a runtime reaches at best on this machine: the peaks of a roofline, measured through it.

A network whose products are large and read from caches shows arithmetic; one whose weights exceed
every cache and serve a single token shows the way to memory. Datasheets know neither threads nor
quotas nor a library's kernels.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from predictors.protocol import Runnable
from predictors.runtimes.base import Network, Runtime
from predictors.workload import Workload
from search.costs import flops, size_bytes
from search.shape import ModelShape
from search.space import SubnetConfig

NUM_RUNS = 3
COMPUTE_SEQ_LEN = 128
EMBED_DIM = 512
NUM_STREAMED_LAYERS = 4  # of 12.6 MB each in fp32: beyond the caches of most machines


def measure_peaks(
    runtime: Runtime, workload: Workload, scratch: Path | None = None
) -> dict[str, Any]:
    """`flops_per_s` by precision and `bytes_per_s`, with the workload's provider and threads.

    Takes about a second. The best of a few runs counts: a peak is what nothing disturbed.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        return {
            "flops_per_s": {
                precision: _flops_per_s(runtime, workload, Path(folder), precision)
                for precision in workload.precisions
            },
            "bytes_per_s": _bytes_per_s(runtime, workload, Path(folder)),
        }


def _flops_per_s(runtime: Runtime, workload: Workload, folder: Path, precision: str) -> float:
    shape = _shape(num_layers=1)
    subnet = SubnetConfig.full(shape, precision)
    at = replace(workload, batch_size=1, seq_len=COMPUTE_SEQ_LEN, phase="encode")
    network = Network(key=f"peak-{precision}", shape=shape, folder=folder, subnet=subnet)
    work = flops(shape, subnet, seq_len=COMPUTE_SEQ_LEN)
    return work / _best_s(runtime.load(network, at))


def _bytes_per_s(runtime: Runtime, workload: Workload, folder: Path) -> float:
    shape = _shape(num_layers=NUM_STREAMED_LAYERS)
    subnet = SubnetConfig.full(shape)
    at = replace(workload, batch_size=1, seq_len=1, phase="encode")
    network = Network(key="peak-bytes", shape=shape, folder=folder, subnet=subnet)
    return size_bytes(shape, subnet) / _best_s(runtime.load(network, at))


def _shape(num_layers: int) -> ModelShape:
    return ModelShape(
        family="bert",
        num_layers=num_layers,
        embed_dim=EMBED_DIM,
        num_heads=EMBED_DIM // 64,
        head_dim=64,
        ffn_dim=4 * EMBED_DIM,
        vocab_size=8,
        max_seq_len=COMPUTE_SEQ_LEN,
        num_token_types=1,
        num_labels=2,
    )


def _best_s(network: Runnable) -> float:
    network.run()
    best = float("inf")
    for _ in range(NUM_RUNS):
        start = time.perf_counter()
        network.run()
        best = min(best, time.perf_counter() - start)
    return max(best, 1e-9)
