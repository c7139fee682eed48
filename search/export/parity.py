"""Does an exported file answer as the network it was made from?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from search.errors import SnugnetError
from search.export.running import file_answers
from search.shape import ModelShape
from search.training.rows import Rows
from search.training.tasks import task_of

MAX_FP32_ERROR = 1e-3
MIN_INT8_AGREEMENT = 0.95


class ParityError(SnugnetError):
    """The exported file answers otherwise than the trained network."""

    code = "parity"


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest difference of a logit, and the share of answers that are the same (of vectors, the
    mean of their cosines)."""

    max_error: float
    agreement: float
    num_rows: int


def check_parity(
    path: Path, rows: Rows, expected: Tensor, shape: ModelShape, *, precision: str
) -> Parity:
    """Compares the file with the trained network's `expected` answers, as `predict` gives them.

    fp32 must agree to rounding. int8 is compared with its simulation in training, which rounds
    alike but sums in another order: labels must agree.

    Raises:
        ParityError: it does not.
    """
    actual = file_answers(path, rows)
    parity = Parity(
        max_error=float((actual - expected).abs().max()),
        agreement=task_of(shape).agreement(actual, expected),
        num_rows=len(rows),
    )
    if precision == "fp32" and parity.max_error > MAX_FP32_ERROR:
        raise ParityError(
            f"{path.name} differs from the trained network by {parity.max_error:.2g}"
        )
    if parity.agreement < MIN_INT8_AGREEMENT:
        raise ParityError(
            f"{path.name} answers as the trained network for {parity.agreement:.1%} of "
            f"{len(rows)} rows only"
        )
    return parity
