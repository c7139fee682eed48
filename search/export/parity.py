"""Does an exported file answer as the network it was made from?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from search.export.errors import ParityError
from search.export.running import file_answers
from search.shape import ModelShape
from search.training.rows import Rows
from search.training.tasks import task_of

__all__ = ["Parity", "ParityError", "check_parity", "compare"]

MAX_FP32_ERROR = 1e-3
# Of the largest logit: a weight in half is off by 2^-11 of itself at most.
MAX_FP16_ERROR = 2e-2
MIN_INT8_AGREEMENT = 0.95


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest difference of a logit, and the share of answers that are the same (of vectors, the
    mean of their cosines)."""

    max_error: float
    agreement: float
    num_rows: int

    def __str__(self) -> str:
        return (
            f"answers as the trained network for {self.agreement:.1%} of {self.num_rows} rows, "
            f"logits within {self.max_error:.2g}"
        )


def check_parity(
    path: Path, rows: Rows, expected: Tensor, shape: ModelShape, *, precision: str
) -> Parity:
    """Compares the file with the trained network's `expected` answers, as `predict` gives them.

    fp32 must agree to rounding, fp16 to that of its weights. int8 is compared with its simulation
    in training, which rounds alike but sums in another order: labels must agree.

    Raises:
        ParityError: it does not.
        ExportFailed: it does not even load.
    """
    parity = compare(file_answers(path, rows), expected, shape, num_rows=len(rows))
    allowed = {
        "fp32": MAX_FP32_ERROR,
        "fp16": MAX_FP16_ERROR * float(expected.abs().max()),
    }.get(precision, float("inf"))
    # Not `>`: NaN must not pass.
    if not parity.max_error <= allowed:
        raise ParityError(
            f"{path.name} differs from the trained network by {parity.max_error:.2g}"
        )
    if parity.agreement < MIN_INT8_AGREEMENT:
        raise ParityError(
            f"{path.name} answers as the trained network for {parity.agreement:.1%} of "
            f"{len(rows)} rows only"
        )
    return parity


def compare(actual: Tensor, expected: Tensor, shape: ModelShape, *, num_rows: int) -> Parity:
    """Two networks' answers to the same `num_rows` rows, (answers, labels) each."""
    return Parity(
        max_error=float((actual - expected).abs().max()),
        agreement=task_of(shape).agreement(actual, expected),
        num_rows=num_rows,
    )
