"""What a student learns from: labels, and its teacher's soft labels, hidden states, relations."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from search.model.transformer import Batch, Output, attention_bias
from search.shape import ModelShape
from search.space import SubnetConfig
from search.training.tasks import Task, task_of

LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationLoss:
    """Weighted sum of what a student can learn from.

    Attributes:
        soft: weight of the distance to the teacher's answers, as the task measures it.
        hard: weight of the task's own loss on the labels.
        hidden: weight of the error of hidden states; see `hidden_error`.
        relations: weight of the error of the last layer's relations; see `relation_error`.
        temperature: of the soft labels.
        is_causal: whether a token's relations are to earlier ones only.
    """

    task: Task
    is_causal: bool = False
    temperature: float = 2.0
    soft: float = 0.7
    hard: float = 0.3
    hidden: float = 0.5
    relations: float = 0.0

    @classmethod
    def for_shape(cls, shape: ModelShape, **weights: float) -> Self:
        return cls(task=task_of(shape), is_causal=shape.is_causal, **weights)

    def __call__(
        self, student: Output, subnet: SubnetConfig, teacher: Output, batch: Batch, labels: Tensor
    ) -> Tensor:
        """A scalar. `subnet` says which layers of the teacher the student's are."""
        loss = self.soft * self.task.soft_loss(student, teacher, labels, self.temperature)
        if self.hard:
            loss = loss + self.hard * self.task.loss(student, labels)
        if self.hidden:
            loss = loss + self.hidden * hidden_error(student, subnet, teacher, batch)
        if self.relations:
            error = relation_error(student, teacher, batch, is_causal=self.is_causal)
            loss = loss + self.relations * error
        return loss


def hidden_error(student: Output, subnet: SubnetConfig, teacher: Output, batch: Batch) -> Tensor:
    """Mean over the kept layers of the error of hidden states (TinyBERT, arXiv 1909.10351, 3.1).

    A layer that a subnet keeps is matched with the same layer of the teacher, a narrower student
    with the teacher's first features. A token's squared error is divided by the teacher's variance
    at it, so that layers weigh alike and so do tokens: in a pre-norm network the first token's
    stream is a hundred times as large as the others'. Each row then counts alike, too.
    """
    errors = []
    for place, layer in enumerate(subnet.layers, start=1):
        mine_BTD = student.hidden[place]
        target_BTD = teacher.hidden[layer + 1][..., : mine_BTD.shape[-1]]
        variance_BT = target_BTD.var(-1, correction=0).clamp(min=LEAST_VARIANCE)
        error_BT = (mine_BTD - target_BTD).square().mean(-1) / variance_BT
        errors.append(_mean_of_rows(error_BT, batch.attention_mask))
    return torch.stack(errors).mean()


def relation_error(
    student: Output, teacher: Output, batch: Batch, *, is_causal: bool = False
) -> Tensor:
    """Distance of the last layers' relations (MiniLMv2, arXiv 2012.15828, section 3).

    How alike queries are to queries, keys to keys and values to values: KL(teacher || student),
    mean over heads and the three kinds. The heads' features are joined and cut into relation
    heads, so that head counts need not match.
    """
    mask_BT = batch.attention_mask
    bias = attention_bias(mask_BT, mask_BT.shape[1], is_causal=is_causal)
    errors = []
    for mine_BHTN, theirs_BHTN in zip(student.relations, teacher.relations, strict=True):
        mine_BTI, theirs_BTI = (x.transpose(1, 2).flatten(2) for x in (mine_BHTN, theirs_BHTN))
        heads = num_relation_heads(mine_BTI.shape[-1], theirs_BTI.shape[-1], theirs_BHTN.shape[1])
        error_BHTT = F.kl_div(
            _log_relations(mine_BTI, heads, bias),
            _log_relations(theirs_BTI, heads, bias),
            log_target=True,
            reduction="none",
        )
        errors.append(_mean_of_rows(error_BHTT.sum(-1).mean(1), mask_BT))
    return torch.stack(errors).mean()


def num_relation_heads(mine: int, theirs: int, at_most: int) -> int:
    """The most heads, up to `at_most`, into which both numbers of features can be cut."""
    common = gcd(mine, theirs)
    return max(count for count in range(1, at_most + 1) if common % count == 0)


def _log_relations(x_BTI: Tensor, heads: int, bias_B1TT: Tensor) -> Tensor:
    """Logarithm of the scaled dot-product softmax of vectors with themselves, (B, heads, T, T)."""
    x_BHTN = x_BTI.view(*x_BTI.shape[:2], heads, -1).transpose(1, 2).float()
    scores_BHTT = x_BHTN @ x_BHTN.transpose(-1, -2) / x_BHTN.shape[-1] ** 0.5
    return F.log_softmax(scores_BHTT + bias_B1TT, -1)


def _mean_of_rows(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over each row's real tokens, then over the rows."""
    mask_BT = mask_BT.to(x_BT.dtype)
    return ((x_BT * mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)).mean()
