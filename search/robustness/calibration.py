"""Whether a classifier is right as often as it says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from search.training.confidence import Interval
from search.training.evaluate import Network
from search.training.rows import Rows
from search.training.tasks import answers

Floats = npt.NDArray[np.float64]

NUM_BINS = 15
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How far confidence and accuracy are apart.

    Attributes:
        calibration_error: the expected one, from 0 to 1. Few rows make it larger, also that of a
            network that is right as often as it says.
        interval: of 95 %, from rows drawn anew.
        mean_confidence: above `accuracy` where a network trusts itself too much.
    """

    calibration_error: float
    interval: Interval
    mean_confidence: float
    accuracy: float
    num_bins: int
    num_rows: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Binned:
    """By row and bin of confidence, (rows, bins): number of answers, right ones, confidences."""

    counts: Floats
    right: Floats
    confidence: Floats

    def error(self) -> float:
        """sum over bins of |B| / n |accuracy(B) - confidence(B)| (Guo et al., arXiv 1706.04599,
        equation 3), of which |B| cancels out."""
        gaps = (self.right - self.confidence).sum(0)
        return float(np.abs(gaps).sum() / self.counts.sum())

    def interval(self, seed: int) -> Interval:
        """The normal one with the deviation over rows drawn anew, as `confidence.bootstrap`."""
        num_rows = len(self.counts)
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(num_rows, np.full(num_rows, 1 / num_rows), RESAMPLES)
        gaps = np.abs(drawn @ (self.right - self.confidence)).sum(1)
        errors = gaps / np.maximum(1, drawn @ self.counts.sum(1))
        half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * float(errors.std(ddof=1))
        value = self.error()
        return Interval(max(0.0, value - half), min(1.0, value + half))


def binned(confidence: Floats, is_right: Floats, row: npt.NDArray[np.int64]) -> Binned:
    """Answers, (answers,) each, sorted into `NUM_BINS` bins of equal width, closed above.

    Args:
        row: which row an answer is of; those of a row depend on each other.
    """
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    sums = np.zeros((3, int(row.max()) + 1, NUM_BINS))
    for table, values in zip(sums, (np.ones_like(confidence), is_right, confidence), strict=True):
        np.add.at(table, (row, bins), values)
    return Binned(*sums)


@torch.no_grad()
def measure_calibration(network: Network, rows: Rows, *, seed: int) -> Calibration:
    """Of a classifier of rows or of tokens, from the probability of the label that it gives."""
    confidences, right, places = [], [], []
    for place in range(len(rows)):
        logits, labels = answers(network(rows.batch([place])), rows.labels_of([place]))
        confidence, given = torch.softmax(logits.double(), -1).max(-1)
        confidences.append(confidence.numpy())
        right.append((given == labels).double().numpy())
        places.append(np.full(len(labels), place))
    table = binned(*map(np.concatenate, (confidences, right, places)))
    num_answers = table.counts.sum()
    return Calibration(
        calibration_error=table.error(),
        interval=table.interval(seed),
        mean_confidence=float(table.confidence.sum() / num_answers),
        accuracy=float(table.right.sum() / num_answers),
        num_bins=NUM_BINS,
        num_rows=len(rows),
    )
