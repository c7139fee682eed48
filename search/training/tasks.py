"""What a model is asked to do: the loss it learns by, and how good its answers are.

Labels are (batch,) for one answer a row, or (batch, seq) for one a token; `IGNORED` marks tokens
that have none: padding, and what only helps to read the rest.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search.errors import InvalidInput
from search.model.transformer import Output
from search.shape import TASKS, ModelShape

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Scores:
    """Sums over the answers of each row, (rows,) float64 each; quality is score by count."""

    score: Tensor
    loss: Tensor
    count: Tensor

    def stacked(self) -> Tensor:
        """All of it in host memory, (3, rows)."""
        return torch.stack([self.score, self.loss, self.count]).cpu()


def joined(scores: Sequence[Scores]) -> Scores:
    """Of the rows of several splits, one after the other."""
    return Scores(*torch.cat([s.stacked() for s in scores], dim=1))


class Task(ABC):
    """One of `search.shape.TASKS`.

    Attributes:
        metric: what `quality` is, higher being better.
        best: the quality of a model that is always right.
    """

    metric: str
    best: float = 1.0

    @abstractmethod
    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Mean over the answers: what plain training minimises."""

    @abstractmethod
    def soft_loss(
        self, student: Output, teacher: Output, labels: Tensor, temperature: float
    ) -> Tensor:
        """Mean over the answers of the distance to the teacher's."""

    @abstractmethod
    def scores(self, output: Output, labels: Tensor) -> Scores:
        """How good a batch's answers are, row by row."""

    @abstractmethod
    def chance(self, shape: ModelShape) -> float:
        """Quality of a model that knows nothing: where an improvement is counted from."""

    def divergence(self, output: Output, reference: Output, labels: Tensor) -> Tensor:
        """Mean over the answers of the distance to another network's, 0 for equal ones.

        KL(reference || output), in nats, unless a task says otherwise.
        """
        return self.soft_loss(output, reference, labels, 1.0)

    def agreement(self, answers: Tensor, others: Tensor) -> float:
        """Share of the answers, (answers, labels), that are the same as another network's."""
        return float((answers.argmax(-1) == others.argmax(-1)).double().mean())

    def kept(self, quality: float, original: float) -> float | None:
        """Share of the original's quality; None where that is nothing."""
        return quality / original if original > 0 else None

    def show(self, quality: float) -> str:
        """As people read it."""
        return f"{quality:.1%}"


class Classification(Task):
    """One label a row, or one a token; quality is the share that is right."""

    metric = "accuracy"

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        logits, wanted = answers(output.logits, labels)
        return F.cross_entropy(logits, wanted)

    def soft_loss(
        self, student: Output, teacher: Output, labels: Tensor, temperature: float
    ) -> Tensor:
        """T^2 KL(teacher || student) (Hinton et al., arXiv 1503.02531, section 2)."""
        logits, _ = answers(student.logits, labels)
        target, _ = answers(teacher.logits, labels)
        return temperature**2 * F.kl_div(
            F.log_softmax(logits / temperature, -1),
            F.log_softmax(target / temperature, -1),
            log_target=True,
            reduction="batchmean",
        )

    def scores(self, output: Output, labels: Tensor) -> Scores:
        loss, count = _losses(output, labels)
        right = (output.logits.argmax(-1) == labels).double()
        return Scores(_by_row(right), loss, count)

    def chance(self, shape: ModelShape) -> float:
        return 1 / shape.num_labels


class LanguageModelling(Classification):
    """The next token at every place; quality is minus the logarithm of the perplexity."""

    metric = "log_likelihood"
    best = 0.0

    def scores(self, output: Output, labels: Tensor) -> Scores:
        loss, count = _losses(output, labels)
        return Scores(-loss, loss, count)

    def chance(self, shape: ModelShape) -> float:
        return -math.log(shape.vocab_size)

    def kept(self, quality: float, original: float) -> float | None:
        """The original's perplexity as a share of this one's."""
        return math.exp(quality - original)

    def show(self, quality: float) -> str:
        return f"perplexity {math.exp(-quality):.2f}"


class SentenceEmbedding(Task):
    """A vector a text, close to the teacher's; labels are those vectors, (batch, features)."""

    metric = "cosine"

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        return (1 - F.cosine_similarity(output.logits, labels)).mean()

    def soft_loss(
        self, student: Output, teacher: Output, labels: Tensor, temperature: float
    ) -> Tensor:
        """Distance of the similarities within the batch, which is what embeddings are used for.

        Each text's similarities to the others as a distribution (after SEED, arXiv 2101.04731,
        section 3.2); `labels` play no part.
        """
        del labels
        mine, theirs = (F.normalize(o.logits, dim=-1) for o in (student, teacher))
        scale = 20.0 / temperature
        others = ~torch.eye(len(mine), dtype=torch.bool, device=mine.device)
        if len(mine) < 3:
            return (1 - F.cosine_similarity(mine, theirs)).mean()
        return F.kl_div(
            F.log_softmax(scale * (mine @ mine.T)[others].view(len(mine), -1), -1),
            F.log_softmax(scale * (theirs @ theirs.T)[others].view(len(mine), -1), -1),
            log_target=True,
            reduction="batchmean",
        )

    def scores(self, output: Output, labels: Tensor) -> Scores:
        cosine = F.cosine_similarity(output.logits.float(), labels).double()
        return Scores(cosine, 1 - cosine, torch.ones_like(cosine))

    def agreement(self, answers: Tensor, others: Tensor) -> float:
        """Mean of the cosines."""
        return float(F.cosine_similarity(answers, others).mean())

    def divergence(self, output: Output, reference: Output, labels: Tensor) -> Tensor:
        """1 minus the cosine."""
        return self.loss(output, reference.logits)

    def chance(self, shape: ModelShape) -> float:
        del shape
        return 0.0

    def show(self, quality: float) -> str:
        return f"cosine {quality:.3f}"


_TASKS: dict[str, Task] = {
    "text-classification": Classification(),
    "pair-classification": Classification(),
    "token-classification": Classification(),
    "image-classification": Classification(),
    "sentence-embedding": SentenceEmbedding(),
    "language-modelling": LanguageModelling(),
}
assert set(_TASKS) == set(TASKS)


def task_of(shape: ModelShape) -> Task:
    """Raises: InvalidInput when the shape names no task."""
    if shape.task not in _TASKS:
        raise InvalidInput("task", f"{shape.task!r} is not one of {TASKS}")
    return _TASKS[shape.task]


def answers(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (answers, labels) and labels (answers,) of the places that have one."""
    flat = labels.flatten()
    kept = flat != IGNORED
    return logits.flatten(0, -2)[kept], flat[kept]


def num_answers(labels: Tensor) -> int:
    """Over which a task's loss is a mean: labels, or vectors, that are asked for."""
    return len(labels) if labels.is_floating_point() else int((labels != IGNORED).sum())


def _losses(output: Output, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's sum of cross-entropies, and how many they are."""
    logits = output.logits.float().flatten(0, -2)
    losses = F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="none")
    return _by_row(losses.view_as(labels)), _by_row(labels != IGNORED)


def _by_row(values: Tensor) -> Tensor:
    """Sums over each row, (batch,) float64."""
    return values.double().view(len(values), -1).sum(1)
