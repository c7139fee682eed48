"""What a student learns from: labels, and its teacher's soft labels, hidden states, attention,
relations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, sqrt
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.model.transformer import Batch, Output, attention_bias
from search.shape import ModelShape
from search.space import SubnetConfig
from search.training.tasks import Task, task_of

LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """What of a teacher a student is held against, part by part.

    Attributes:
        layers: the teacher's, one for each of the student's; None: those that its subnet keeps.
        heads: of each of the student's layers, which of the teacher's query heads its own are;
            None: it is not known, see `attention_error`.
        projection: from the student's features to the teacher's (TinyBERT, arXiv 1909.10351,
            equation 8), learnt with the student; None: they are the teacher's first ones.
    """

    layers: tuple[int, ...] | None = None
    heads: tuple[tuple[int, ...], ...] | None = None
    projection: nn.Module | None = None

    def layers_of(self, subnet: SubnetConfig) -> tuple[int, ...]:
        return subnet.layers if self.layers is None else self.layers


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationLoss:
    """Weighted sum of what a student can learn from.

    Attributes:
        soft: weight of the distance to the teacher's answers, as the task measures it.
        hard: weight of the task's own loss on the labels.
        hidden: weight of the error of hidden states; see `hidden_error`.
        attention: weight of the error of attention; see `attention_error`.
        relations: weight of the error of the last layer's relations; see `relation_error`.
        temperature: of the soft labels.
        is_causal: whether a token's relations are to earlier ones only.
        match: which parts of the two are compared.
    """

    task: Task
    is_causal: bool = False
    temperature: float = 2.0
    soft: float = 0.7
    hard: float = 0.3
    hidden: float = 0.5
    attention: float = 0.0
    relations: float = 0.0
    match: Match = Match()

    @classmethod
    def for_shape(cls, shape: ModelShape, match: Match | None = None, **weights: float) -> Self:
        return cls(
            task=task_of(shape), is_causal=shape.is_causal, match=match or Match(), **weights
        )

    def __call__(
        self, student: Output, subnet: SubnetConfig, teacher: Output, batch: Batch, labels: Tensor
    ) -> Tensor:
        """A scalar. `subnet` says which layers of the teacher the student's are."""
        loss = torch.zeros((), device=student.logits.device)
        if self.soft:
            soft_loss = self.task.soft_loss(student, teacher, labels, self.temperature)
            loss = loss + self.soft * soft_loss
        if self.hard:
            loss = loss + self.hard * self.task.loss(student, labels)
        if self.hidden:
            error = hidden_error(student, subnet, teacher, batch, self.match)
            loss = loss + self.hidden * error
        if self.attention:
            layers = self.match.layers_of(subnet)
            error = attention_error(
                student, layers, teacher, batch, heads=self.match.heads, is_causal=self.is_causal
            )
            loss = loss + self.attention * error
        if self.relations:
            error = relation_error(student, teacher, batch, is_causal=self.is_causal)
            loss = loss + self.relations * error
        return loss


def hidden_error(
    student: Output,
    subnet: SubnetConfig,
    teacher: Output,
    batch: Batch,
    match: Match = Match(),
) -> Tensor:
    """Mean over the kept layers of the error of hidden states (TinyBERT, arXiv 1909.10351, 3.1).

    A layer that a subnet keeps is matched with the same layer of the teacher, a narrower student
    with the teacher's first features, unless `match` says otherwise. A token's squared error is
    divided by the teacher's variance at it, so that layers weigh alike and so do tokens: in a
    pre-norm network the first token's stream is a hundred times as large as the others'. Each row
    then counts alike, too.
    """
    errors = []
    for place, layer in enumerate(match.layers_of(subnet), start=1):
        mine_BTD = student.hidden[place]
        if match.projection is not None:
            mine_BTD = match.projection(mine_BTD)
        target_BTD = teacher.hidden[layer + 1][..., : mine_BTD.shape[-1]]
        variance_BT = target_BTD.var(-1, correction=0).clamp(min=LEAST_VARIANCE)
        error_BT = (mine_BTD - target_BTD).square().mean(-1) / variance_BT
        errors.append(_mean_of_rows(error_BT, batch.attention_mask))
    return torch.stack(errors).mean()


def attention_error(
    student: Output,
    layers: Sequence[int],
    teacher: Output,
    batch: Batch,
    *,
    heads: Sequence[Sequence[int]] | None = None,
    is_causal: bool = False,
) -> Tensor:
    """Mean over layers and heads of the error of attention (TinyBERT, arXiv 1909.10351, eq. 7).

    Of scores before the softmax, which the paper found to teach better and sooner. What is added
    to all scores of a token changes no attention, so each token's scores have a mean of 0; a
    head's squared error is divided by its teacher's squares, so that heads weigh alike.

    A head that was cut from the teacher is held against the one that it was. Where that is not
    known, networks of as many heads are compared one by one, as the paper does; others by the
    mean over their heads, since no head of the one is one of the other (as Zagoruyko and
    Komodakis, arXiv 1612.03928, section 3.1, do over channels).

    Args:
        layers: of the teacher, one for each of the student's.
        heads: of each of the student's layers, which of the teacher's query heads its own are.
    """
    mask_BT = batch.attention_mask
    bias_B1TT = attention_bias(mask_BT, mask_BT.shape[1], is_causal=is_causal)
    seen_B1TT = (bias_B1TT == 0) & (mask_BT == 1)[:, None, :, None]
    errors = []
    for place, layer in enumerate(layers):
        mine_BHTT, theirs_BHTT = _scores(student, place), _scores(teacher, layer)
        if heads is not None:
            theirs_BHTT = theirs_BHTT[:, list(heads[place])]
        elif mine_BHTT.shape[1] != theirs_BHTT.shape[1]:
            mine_BHTT, theirs_BHTT = (x.mean(1, keepdim=True) for x in (mine_BHTT, theirs_BHTT))
        mine_BHTT, theirs_BHTT = (_centred(x, seen_B1TT) for x in (mine_BHTT, theirs_BHTT))
        error_BH = (mine_BHTT - theirs_BHTT).square().sum((-2, -1))
        whole_BH = theirs_BHTT.square().sum((-2, -1)).clamp(min=LEAST_VARIANCE)
        errors.append((error_BH / whole_BH).mean())
    return torch.stack(errors).mean()


def relation_error(
    student: Output,
    teacher: Output,
    batch: Batch,
    *,
    is_causal: bool = False,
    relation_heads: int = 0,
) -> Tensor:
    """Distance of the last layers' relations (MiniLMv2, arXiv 2012.15828, section 3).

    How alike queries are to queries, keys to keys and values to values: KL(teacher || student),
    mean over heads and the three kinds. The heads' features are joined and cut into relation
    heads, so that head counts need not match.

    Args:
        relation_heads: a divisor of both numbers of features; 0: as many as the teacher has heads,
            or the next fewer that divide both.
    """
    mask_BT = batch.attention_mask
    bias = attention_bias(mask_BT, mask_BT.shape[1], is_causal=is_causal)
    errors = []
    for mine_BHTN, theirs_BHTN in zip(student.relations, teacher.relations, strict=True):
        mine_BTI, theirs_BTI = (x.transpose(1, 2).flatten(2) for x in (mine_BHTN, theirs_BHTN))
        heads = relation_heads or num_relation_heads(
            mine_BTI.shape[-1], theirs_BTI.shape[-1], theirs_BHTN.shape[1]
        )
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


def _scores(output: Output, place: int) -> Tensor:
    """Of the layer at `place`, before mask and softmax: (B, H, T, T)."""
    queries_BHTN, keys_BKTN = (x.float() for x in output.attention[place])
    keys_BHTN = keys_BKTN.repeat_interleave(queries_BHTN.shape[1] // keys_BKTN.shape[1], dim=1)
    return queries_BHTN @ keys_BHTN.transpose(-1, -2) / sqrt(queries_BHTN.shape[-1])


def _centred(scores_BHTT: Tensor, seen_B1TT: Tensor) -> Tensor:
    """Less their mean over what each token sees, and 0 where it sees nothing."""
    seen_B1TT = seen_B1TT.to(scores_BHTT.dtype)
    total_BHT1 = (scores_BHTT * seen_B1TT).sum(-1, keepdim=True)
    mean_BHT1 = total_BHT1 / seen_B1TT.sum(-1, keepdim=True).clamp(min=1)
    return (scores_BHTT - mean_BHT1) * seen_B1TT


def _log_relations(x_BTI: Tensor, heads: int, bias_B1TT: Tensor) -> Tensor:
    """Logarithm of the scaled dot-product softmax of vectors with themselves, (B, heads, T, T)."""
    x_BHTN = x_BTI.view(*x_BTI.shape[:2], heads, -1).transpose(1, 2).float()
    scores_BHTT = x_BHTN @ x_BHTN.transpose(-1, -2) / x_BHTN.shape[-1] ** 0.5
    return F.log_softmax(scores_BHTT + bias_B1TT, -1)


def _mean_of_rows(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over each row's real tokens, then over the rows."""
    mask_BT = mask_BT.to(x_BT.dtype)
    return ((x_BT * mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)).mean()
