"""Quality of a file of which some bits have flipped: faults of memory, and how many it bears."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, numpy_helper

from search.export.running import OnnxNetwork
from search.model.transformer import Output
from search.shape import ModelShape
from search.training.evaluate import Network
from search.training.rows import Rows
from search.training.tasks import num_answers, task_of

RATES = (1e-6, 1e-5, 1e-4, 1e-3)
NUM_TRIALS = 5
STORED_AS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8)

OpenModel = Callable[[bytes], Network]


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipLevel:
    """What a rate of faults leaves, over the trials.

    Attributes:
        rate: chance of a bit to flip.
        mean_flips: how many did, on average.
        quality: the mean; `worst` is the lowest.
        collapsed: share of trials that lost more than half of what the clean file is better by
            than one that knows nothing.
    """

    rate: float
    mean_flips: float
    quality: float
    worst: float
    collapsed: float


@dataclass(frozen=True, kw_only=True, slots=True)
class BitFlips:
    """What each rate leaves; `num_bits` are those that may flip, of every matrix in the file."""

    metric: str
    clean: float
    levels: tuple[FlipLevel, ...]
    num_bits: int
    num_rows: int
    num_trials: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "levels": [asdict(level) for level in self.levels]}


class StoredBits:
    """The matrices of an ONNX file as it stores them: fp32, fp16, int8, or int4 in blocks."""

    def __init__(self, path: Path) -> None:
        self._model = onnx.load(path)
        self._tensors = [tensor for tensor in self._model.graph.initializer if _is_matrix(tensor)]
        for tensor in self._tensors:
            if not tensor.HasField("raw_data"):
                array = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        self._ends = 8 * np.cumsum([len(tensor.raw_data) for tensor in self._tensors])

    @property
    def num_bits(self) -> int:
        return int(self._ends[-1]) if self._tensors else 0

    def draw(self, rate: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Places of the bits that flip; one that is drawn twice flips twice."""
        return rng.integers(0, self.num_bits, rng.binomial(self.num_bits, rate))

    @contextmanager
    def flipped(self, bits: npt.NDArray[np.int64]) -> Iterator[bytes]:
        """The whole file with these bits flipped; afterwards they are as before."""
        kept = [tensor.raw_data for tensor in self._tensors]
        for place, tensor in enumerate(self._tensors):
            start = self._ends[place] - 8 * len(kept[place])
            mine = bits[(bits >= start) & (bits < self._ends[place])] - start
            if len(mine):
                stored = np.frombuffer(kept[place], dtype=np.uint8).copy()
                np.bitwise_xor.at(stored, mine >> 3, (1 << (mine & 7)).astype(np.uint8))
                tensor.raw_data = stored.tobytes()
        try:
            yield self._model.SerializeToString()
        finally:
            for tensor, before in zip(self._tensors, kept, strict=True):
                tensor.raw_data = before


def _is_matrix(tensor: onnx.TensorProto) -> bool:
    """Of three dimensions where two weights share a byte; see `search.export.int4`."""
    is_packed = len(tensor.dims) == 3 and tensor.data_type == TensorProto.UINT8
    return is_packed or (len(tensor.dims) == 2 and tensor.data_type in STORED_AS)


def measure_bit_flips(
    path: Path,
    rows: Rows,
    shape: ModelShape,
    *,
    seed: int,
    rates: Sequence[float] = RATES,
    num_trials: int = NUM_TRIALS,
    open_model: OpenModel = OnnxNetwork,
) -> BitFlips:
    """Of the file in ONNX Runtime; `open_model` makes a network of a file's bytes."""
    stored = StoredBits(path)
    clean = faulty_quality(open_model(path.read_bytes()), rows, shape)
    levels = []
    for level, rate in enumerate(rates):
        qualities, flips = [], []
        for trial in range(num_trials):
            bits = stored.draw(rate, np.random.default_rng([seed, level, trial]))
            with stored.flipped(bits) as model:
                qualities.append(faulty_quality(open_model(model), rows, shape))
            flips.append(len(bits))
        levels.append(_level(rate, qualities, flips, clean, task_of(shape).chance(shape)))
    return BitFlips(
        metric=task_of(shape).metric,
        clean=clean,
        levels=tuple(levels),
        num_bits=stored.num_bits,
        num_rows=len(rows),
        num_trials=num_trials,
    )


@torch.no_grad()
def faulty_quality(network: Network, rows: Rows, shape: ModelShape) -> float:
    """As `evaluate_one_by_one`, but a row without numbers is wrong, and no row counts less.

    A label of which the logit is no number would be the largest one; and one likelihood that is
    almost 0 would be the mean of all.
    """
    task = task_of(shape)
    worst_score = min(0.0, task.chance(shape))
    total = count = 0.0
    for place in range(len(rows)):
        labels = rows.labels_of([place])
        logits, answered = network(rows.batch([place])), num_answers(labels)
        score = worst_score * answered
        if bool(torch.isfinite(logits).all()):
            score = max(score, float(task.scores(Output(logits, ()), labels).score.sum()))
        total, count = total + score, count + answered
    return total / count


def _level(
    rate: float, qualities: Sequence[float], flips: Sequence[int], clean: float, chance: float
) -> FlipLevel:
    lowest = min(clean, (clean + chance) / 2)
    return FlipLevel(
        rate=rate,
        mean_flips=float(np.mean(flips)),
        quality=float(np.mean(qualities)),
        worst=min(qualities),
        collapsed=float(np.mean([quality < lowest for quality in qualities])),
    )
