"""HW-GPT-Bench's latency data (Sukthanker et al. 2024): GPT-like networks on 14 devices.

One prefill of 1,024 tokens. Terms are of one token. A layer has its own number of heads of 64 and
its own ratio of the gated feed-forward's width; a cell is empty where a device has no measurement.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from benchmarks.public.table import CALL, WORK, Floats, Table

SEQ_LEN = 1024.0
HEAD_DIM = 64.0
VOCABULARY = 50_254.0
MACS_PER_LAYER = 1e3
MACS_PER_ELEMENT = 8.0
LATENCY = "lat_ms_"

Rows = list[dict[str, str]]


def read_hwgpt(path: Path) -> dict[str, Table]:
    """A table for each device that the file has latencies of."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    devices = [name.removeprefix(LATENCY) for name in rows[0] if name.startswith(LATENCY)]
    terms, details = _terms(rows), _details(rows)
    layers, macs = _numbers(rows, "n_layer"), _numbers(rows, "macs")
    tables = {}
    for device in devices:
        column = [row[LATENCY + device] for row in rows]
        measured = np.array([place for place, text in enumerate(column) if text], dtype=np.int64)
        tables[device] = Table(
            terms=terms[measured],
            families=np.array([CALL] + [WORK] * (terms.shape[1] - 1)),
            part_of_term=np.zeros(terms.shape[1], dtype=np.int64),
            parts_ms=np.array([[float(column[place])] for place in measured]),
            details=details[measured],
            depths=tuple(layers[measured].astype(int).tolist()),
            depth_terms=np.stack([np.ones(len(measured)), layers[measured]], axis=1),
            macs=macs[measured],
        )
    return tables


def _terms(rows: Rows) -> Floats:
    dim, layers = _numbers(rows, "embed_dim"), _numbers(rows, "n_layer")
    biased = _numbers(rows, "bias")
    heads = np.array([sum(_by_layer(row, "n_head")) for row in rows])
    ratios = np.array([sum(_by_layer(row, "mlp_ratio")) for row in rows])
    return np.stack(
        [
            np.ones(len(rows)),
            MACS_PER_LAYER * layers,
            4 * HEAD_DIM * heads * dim,
            3 * ratios * dim**2,
            2 * HEAD_DIM * SEQ_LEN * heads,
            MACS_PER_ELEMENT * layers * dim,
            MACS_PER_ELEMENT * ratios * dim,
            VOCABULARY * dim,
            MACS_PER_ELEMENT * biased * layers * dim,
            MACS_PER_ELEMENT * biased,
        ],
        axis=1,
    )


def _details(rows: Rows) -> Floats:
    """How many layers have each choice: kernels like some widths better than others."""
    dim = _numbers(rows, "embed_dim")
    columns = [(dim == value).astype(np.float64) for value in np.unique(dim)]
    for name in ("n_head", "mlp_ratio"):
        by_layer = [np.array(_by_layer(row, name)) for row in rows]
        choices = sorted({value for values in by_layer for value in values.tolist()})
        columns += [_counts(by_layer, value) for value in choices]
    return np.stack([*columns, _numbers(rows, "n_layer"), _numbers(rows, "bias")], axis=1)


def _counts(by_layer: list[Floats], value: float) -> Floats:
    return np.array([float((values == value).sum()) for values in by_layer])


def _numbers(rows: Rows, name: str) -> Floats:
    return np.array([float(row[name]) for row in rows])


def _by_layer(row: dict[str, str], name: str) -> list[float]:
    return [float(value) for value in row[name].split("|")]
