"""How good a subnet is on labelled rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search.model.transformer import ElasticTransformer
from search.space import SubnetConfig
from search.training.batches import TokenRows, ordered_batches


@dataclass(frozen=True, slots=True)
class Quality:
    value: float
    loss: float
    num_rows: int


@torch.no_grad()
def predict(
    model: ElasticTransformer, rows: TokenRows, subnet: SubnetConfig | None = None
) -> Tensor:
    """Logits of every row, (rows, labels), in the rows' order; no dropout."""
    model.eval()
    logits = torch.empty(len(rows), model.shape.num_labels)
    for places, batch in ordered_batches(rows):
        logits[places] = model(batch, subnet).logits.float()
    return logits


def evaluate(
    model: ElasticTransformer, rows: TokenRows, subnet: SubnetConfig | None = None
) -> Quality:
    logits = predict(model, rows, subnet)
    return Quality(
        value=float((logits.argmax(-1) == rows.labels).double().mean()),
        loss=float(F.cross_entropy(logits, rows.labels)),
        num_rows=len(rows),
    )


def divergence(logits: Tensor, reference: Tensor) -> float:
    """Mean KL(reference || logits) over the rows, in nats."""
    return float(
        F.kl_div(
            logits.log_softmax(-1),
            reference.log_softmax(-1),
            log_target=True,
            reduction="batchmean",
        )
    )
