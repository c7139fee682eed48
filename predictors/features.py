"""Physical terms of a network: what a layer-by-layer cost model of its latency adds up.

Sums over layers, never averages: two layers of 12 and 4 heads do the work of two with 8. Every
term is stated in multiply-adds or their rough equivalent, so that terms which measurements cannot
tell apart (at one batch size and length most are proportional) may be added up into one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from search.shape import ModelShape
from search.space import SubnetConfig
from search.weights import PROJECTIONS, layer_matrices

Floats = npt.NDArray[np.float64]

# Each term with the part of the network that its cost is shown as.
TERM_PARTS = {
    "call": "overhead",
    "layers": "overhead",
    "tokens": "embeddings_and_head",
    "norm_elements": "norms_and_residuals",
    "projection_macs": "projections",
    "projection_sqrt": "projections",
    "projection_traffic": "projections",
    "attention_macs": "attention",
    "softmax_elements": "attention",
    "ffn_macs": "ffn",
    "ffn_sqrt": "ffn",
    "ffn_traffic": "ffn",
    "ends_macs": "embeddings_and_head",
    "ends_traffic": "embeddings_and_head",
}
TERM_NAMES = tuple(TERM_PARTS)
PARTS = tuple(dict.fromkeys(TERM_PARTS.values()))

# What one of each costs, in multiply-adds of a good matrix kernel, to an order of magnitude.
MACS_PER_CALL = 1e6
MACS_PER_LAYER = 2e5
MACS_PER_ELEMENT = 8.0
# A narrow matrix has a higher cost per multiply-add: about as if a strip of this many were added.
SQRT_SCALE = 1e3
BYTES_PER_WEIGHT = {"fp32": 4.0, "int8": 1.0}
# Of machines that did not measure their own: a fast core over one memory channel.
DEFAULT_MACS_PER_BYTE = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkPoint:
    """A network at one size of input: what a latency is predicted for."""

    subnet: SubnetConfig
    batch_size: int
    seq_len: int


def points_of(
    subnets: Sequence[SubnetConfig], *, batch_size: int, seq_len: int
) -> list[NetworkPoint]:
    return [NetworkPoint(subnet=s, batch_size=batch_size, seq_len=seq_len) for s in subnets]


def latency_terms(
    shape: ModelShape,
    points: Sequence[NetworkPoint],
    *,
    macs_per_byte: float = DEFAULT_MACS_PER_BYTE,
    phase: str = "encode",
) -> Floats:
    """The terms of each point, (len(points), len(TERM_NAMES)), none of them negative.

    Args:
        phase: of the workload: what a pass reads, and what it answers.
        macs_per_byte: multiply-adds that the device does while it reads one byte, from its
            measured peaks; it decides which matrices count as bound by memory.
    """
    rows = [_terms(shape, point, macs_per_byte, phase) for point in points]
    return np.array(rows, dtype=np.float64).reshape(len(points), len(TERM_NAMES))


def latency_details(shape: ModelShape, points: Sequence[NetworkPoint]) -> Floats:
    """What a residual may depend on beyond sums, (len(points), 8): sizes and their spread."""
    rows = []
    for point in points:
        subnet = point.subnet
        heads, ffn = np.array(subnet.num_heads, float), np.array(subnet.ffn_dim, float)
        rows.append(
            [
                np.log(point.batch_size),
                np.log(point.seq_len),
                float(subnet.num_layers),
                np.log(heads.sum()),
                np.log(ffn.sum()),
                heads.std() / shape.num_heads,
                ffn.std() / shape.ffn_dim,
                np.log(subnet.width_in(shape)),
            ]
        )
    return np.array(rows, dtype=np.float64).reshape(len(points), 8)


def macs_per_byte(peaks: Mapping[str, object] | None, precision: str) -> float:
    """From peaks as an agent reports them; the default where it measured none."""
    if not peaks:
        return DEFAULT_MACS_PER_BYTE
    flops = peaks.get("flops_per_s")
    bytes_per_s = peaks.get("bytes_per_s")
    if not isinstance(flops, Mapping) or not isinstance(bytes_per_s, int | float):
        return DEFAULT_MACS_PER_BYTE
    peak = flops.get(precision, flops.get("fp32"))
    if not isinstance(peak, int | float) or peak <= 0 or bytes_per_s <= 0:
        return DEFAULT_MACS_PER_BYTE
    return float(peak) / 2 / float(bytes_per_s)


def _terms(
    shape: ModelShape, point: NetworkPoint, macs_per_byte: float, phase: str
) -> list[float]:
    subnet, dim = point.subnet, point.subnet.width_in(shape)
    num_read = 1 if phase == "decode" else point.seq_len
    num_seen = point.seq_len + (1 if phase == "decode" else 0)
    tokens, scores = float(point.batch_size * num_read), shape.scores_per_token(num_seen)
    projections, feed_forward = _layer_weights(shape, subnet)
    heads = np.array(subnet.num_heads, float)
    # Multiply-adds in the time that a weight is read.
    traffic = BYTES_PER_WEIGHT.get(subnet.precision, 4.0) * macs_per_byte

    def matrices(weights: Floats) -> list[float]:
        macs = tokens * weights
        return [
            float(macs.sum()),
            float(SQRT_SCALE * np.sqrt(macs).sum()),
            float(np.maximum(weights * traffic - macs, 0).sum()),
        ]

    return [
        MACS_PER_CALL,
        MACS_PER_LAYER * subnet.num_layers,
        MACS_PER_ELEMENT * tokens * dim,
        MACS_PER_ELEMENT * tokens * dim * subnet.num_layers,
        *matrices(projections),
        float((2 * tokens * scores * heads * shape.head_dim).sum()),
        float((MACS_PER_ELEMENT * tokens * scores * heads).sum()),
        *matrices(feed_forward),
        *_ends(shape, dim, tokens, point.batch_size if phase != "encode" else tokens, traffic),
    ]


def _layer_weights(shape: ModelShape, subnet: SubnetConfig) -> tuple[Floats, Floats]:
    """Weights of each layer's projections and feed-forward matrices, (layers,) each."""
    dim, found = subnet.width_in(shape), []
    for num_heads, ffn_dim in zip(subnet.num_heads, subnet.ffn_dim, strict=True):
        sizes = layer_matrices(shape, dim, num_heads, ffn_dim)
        of_part = [
            sum(
                float(prod(size))
                for name, size in sizes.items()
                if (name in PROJECTIONS) == is_own
            )
            for is_own in (True, False)
        ]
        found.append(of_part)
    columns = np.array(found, dtype=np.float64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def _ends(
    shape: ModelShape, dim: int, tokens: float, num_answers: float, traffic: float
) -> list[float]:
    """Multiply-adds and traffic of patches and of a vocabulary; the head of a few labels is
    nothing beside a layer."""
    macs = tokens * shape.patch_dim * dim
    if shape.task != "language-modelling":
        return [macs, 0.0]
    weights = float(shape.vocab_size * dim)
    macs += num_answers * weights
    return [macs, max(weights * traffic - macs, 0.0)]


def merge_proportional(terms: Floats) -> tuple[tuple[int, ...], ...]:
    """Groups of columns that are proportional to each other in every row; zero columns left out.

    No measurement of such rows can tell the costs in a group apart. Their sum stands for them.
    """
    groups: list[list[int]] = []
    norms = np.linalg.norm(terms, axis=0)
    for column in range(terms.shape[1]):
        if norms[column] == 0:
            continue
        for group in groups:
            cosine = terms[:, column] @ terms[:, group[0]] / norms[column] / norms[group[0]]
            if cosine > 1 - 1e-12:
                group.append(column)
                break
        else:
            groups.append([column])
    return tuple(tuple(group) for group in groups)
