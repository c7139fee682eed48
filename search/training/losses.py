"""What a student learns from: labels, the teacher's soft labels, the teacher's hidden states."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from search.model.transformer import Batch, Output, mean_pool
from search.space import SubnetConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationLoss:
    """L = soft T^2 KL(teacher || student) + hard CE + hidden MSE of depth-matched layers.

    Soft labels after Hinton et al. (arXiv 1503.02531), hidden states after TinyBERT (arXiv
    1909.10351, section 3.1). A layer that a subnet keeps is matched with the same layer of the
    teacher; the error is divided by the teacher's variance, so that layers weigh alike.
    """

    temperature: float = 2.0
    soft: float = 0.7
    hard: float = 0.3
    hidden: float = 0.5

    def __call__(
        self, student: Output, subnet: SubnetConfig, teacher: Output, batch: Batch, labels: Tensor
    ) -> Tensor:
        t = self.temperature
        loss = self.hard * F.cross_entropy(student.logits, labels)
        loss = loss + self.soft * t**2 * F.kl_div(
            F.log_softmax(student.logits / t, -1),
            F.log_softmax(teacher.logits / t, -1),
            log_target=True,
            reduction="batchmean",
        )
        if self.hidden:
            loss = loss + self.hidden * self.hidden_error(student, subnet, teacher, batch)
        return loss

    @staticmethod
    def hidden_error(
        student: Output, subnet: SubnetConfig, teacher: Output, batch: Batch
    ) -> Tensor:
        """Mean over the kept layers of MSE / Var on the real tokens."""
        weight_BT = batch.attention_mask.float() / batch.attention_mask.sum()
        errors = []
        for place, layer in enumerate(subnet.layers, start=1):
            target_BTD = teacher.hidden[layer + 1]
            error_BT = (student.hidden[place] - target_BTD).square().mean(-1)
            errors.append((error_BT * weight_BT).sum() / target_BTD.var())
        return sum(errors[1:], errors[0]) / len(errors)


def classification_loss(output: Output, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the labels, (batch,)."""
    return F.cross_entropy(output.logits, labels)


def pooled(output: Output, batch: Batch) -> Tensor:
    """The last layer's mean over the real tokens, (batch, embed_dim)."""
    return mean_pool(output.hidden[-1], batch.attention_mask)
