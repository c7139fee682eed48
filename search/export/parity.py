"""Does an exported file answer as the network it was made from?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from search.errors import SnugnetError
from search.training.batches import TokenRows

MAX_FP32_ERROR = 1e-3
MIN_INT8_AGREEMENT = 0.95


class ParityError(SnugnetError):
    """The exported file answers otherwise than the trained network."""

    code = "parity"


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest difference of a logit, and the share of rows with the same label."""

    max_error: float
    agreement: float
    num_rows: int


def onnx_logits(path: Path, rows: TokenRows) -> Tensor:
    """Logits of every row, one row a call, as a deployed network is called."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    logits = []
    for place in range(len(rows)):
        batch = rows.batch([place])
        feed = {
            "input_ids": batch.inputs.numpy(),
            "attention_mask": batch.attention_mask.numpy(),
        }
        logits.append(session.run(["logits"], feed)[0])
    return torch.from_numpy(np.concatenate(logits))


def check_parity(path: Path, rows: TokenRows, expected: Tensor, *, precision: str) -> Parity:
    """Compares the file with the trained network's `expected` logits, (rows, labels).

    fp32 must agree to rounding. int8 is compared with its simulation in training, which rounds
    alike but sums in another order: labels must agree.

    Raises:
        ParityError: it does not.
    """
    actual = onnx_logits(path, rows)
    parity = Parity(
        max_error=float((actual - expected).abs().max()),
        agreement=float((actual.argmax(-1) == expected.argmax(-1)).double().mean()),
        num_rows=len(rows),
    )
    if precision == "fp32" and parity.max_error > MAX_FP32_ERROR:
        raise ParityError(
            f"{path.name} differs from the trained network by {parity.max_error:.2g}"
        )
    if parity.agreement < MIN_INT8_AGREEMENT:
        raise ParityError(
            f"{path.name} gives the label of the trained network for {parity.agreement:.1%} "
            f"of {len(rows)} rows only"
        )
    return parity
