"""What the loss would rise by if weights were zero, from the curvature of the loss.

The optimal BERT surgeon (Kurtic et al., arXiv 2203.07259): the Hessian is replaced by the
empirical Fisher matrix, of which only blocks of neighbouring weights of a row are kept; the
weights that stay move so that they make up for those that go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from search.model.linears import layer_matrix_names
from search.model.transformer import Batch, ElasticTransformer
from search.training.tasks import task_of

BLOCK = 16
DAMPING = 1e-6
GRADIENT_ROWS = 4


@dataclass(frozen=True, slots=True)
class BlockFisher:
    """Inverse of the damped Fisher matrix, in blocks of `BLOCK` weights: as many numbers for each
    weight, so a network of 10 million weights takes 640 MB.

    Attributes:
        inverse: of every matrix by name, (blocks, BLOCK, BLOCK).
    """

    weights: Mapping[str, Tensor]
    inverse: Mapping[str, Tensor]

    @classmethod
    def measure(cls, model: ElasticTransformer, batches: Iterable[tuple[Batch, Tensor]]) -> Self:
        """From gradients of the task's loss on a few rows each (equation 5, by the Woodbury
        identity)."""
        parameters = dict(model.named_parameters())
        weights = {name: parameters[name] for name in layer_matrix_names(model)}
        gradients = list(_gradients(model, weights, batches))
        inverse = {name: _inverse([gradient[name] for gradient in gradients]) for name in weights}
        return cls(weights, inverse)

    def scores(self) -> dict[str, Tensor]:
        """What the loss rises by without each weight alone, of each weight's shape."""
        found = {}
        for name, weight in self.weights.items():
            diagonal = self.inverse[name].diagonal(dim1=1, dim2=2)
            rises = _blocks(weight).square() / (2 * diagonal)
            found[name] = _unblocked(rises, weight)
        return found

    def remove_(self, masks: Mapping[str, Tensor]) -> None:
        """Zero what is masked; the rest of each block moves to where the loss is least.

        All weights of a block that go are taken together: w += -F' E (E' F' E)^-1 E' w, F' the
        inverse and E the unit vectors of those that go (equation 4, of a group).
        """
        for name, weight in self.weights.items():
            inverse = self.inverse[name]
            old = _blocks(weight)
            gone = (~_blocks(masks[name].float()).bool()).float()
            both = gone.unsqueeze(1) * gone.unsqueeze(2)
            system = inverse * both + torch.diag_embed(1 - gone)
            multipliers = torch.linalg.solve(system, old * gone)
            moved = old - (inverse @ (multipliers * gone).unsqueeze(2)).squeeze(2)
            with torch.no_grad():
                weight.copy_(_unblocked(moved * (1 - gone), weight))


def _gradients(
    model: ElasticTransformer,
    weights: Mapping[str, Tensor],
    batches: Iterable[tuple[Batch, Tensor]],
) -> Iterator[dict[str, Tensor]]:
    """Of a few rows each: the Fisher matrix is made of single gradients, not of their mean."""
    model.eval()
    loss_of = task_of(model.shape).loss
    for batch, labels in batches:
        for start in range(0, len(labels), GRADIENT_ROWS):
            rows = slice(start, start + GRADIENT_ROWS)
            types = batch.token_types
            part = Batch(
                batch.inputs[rows],
                batch.attention_mask[rows],
                None if types is None else types[rows],
            )
            loss = loss_of(model(part), labels[rows])
            found = torch.autograd.grad(loss, list(weights.values()))
            yield dict(zip(weights, found, strict=True))


def _inverse(gradients: list[Tensor]) -> Tensor:
    """Of the damped mean of the gradients' outer products, block by block."""
    count = len(gradients)
    blocks = _blocks(gradients[0])
    # The damping has to fit the curvature: gradients of a small loss are small.
    scale = float(torch.stack([g.square().mean() for g in gradients]).mean())
    damping = max(DAMPING, 0.1 * scale)
    inverse = torch.eye(BLOCK, device=blocks.device).repeat(len(blocks), 1, 1) / damping
    for gradient in gradients:
        g = _blocks(gradient).unsqueeze(2)
        product = inverse @ g
        inverse -= product @ product.transpose(1, 2) / (count + g.transpose(1, 2) @ product)
    return inverse


def _blocks(matrix: Tensor) -> Tensor:
    """(blocks, BLOCK): neighbours, the last block filled up with zeros."""
    flat = matrix.detach().flatten()
    return torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)


def _unblocked(blocks: Tensor, like: Tensor) -> Tensor:
    return blocks.flatten()[: like.numel()].view(like.shape)
