"""Importance of heads, neurons and layers; and the permutation that makes subnets prefixes.

Importance is first-order (Michel et al., arXiv 1905.10650, section 4.1; DynaBERT, arXiv
2004.04037, section 2.1): how much the loss would change, by its gradient, if the unit were gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search.model.transformer import Batch, ElasticTransformer, Gates, Layer
from search.space import SubnetConfig


@dataclass(frozen=True, slots=True)
class Importance:
    heads: tuple[Tensor, ...]  # per layer (num_heads,)
    neurons: tuple[Tensor, ...]  # per layer (ffn_dim,)


def measure_importance(
    model: ElasticTransformer, batches: Iterable[tuple[Batch, Tensor]]
) -> Importance:
    """Mean over the batches of |d loss / d gate| for every head and neuron, gates being 1."""
    model.eval()
    sizes = model.sizes
    gates = Gates(
        tuple(torch.ones(n, requires_grad=True) for n in sizes.num_heads),
        tuple(torch.ones(n, requires_grad=True) for n in sizes.ffn_dim),
    )
    wanted = [*gates.heads, *gates.neurons]
    total = [torch.zeros_like(gate) for gate in wanted]
    count = 0
    for batch, labels in batches:
        loss = F.cross_entropy(model(batch, gates=gates).logits, labels)
        for sum_, gradient in zip(total, torch.autograd.grad(loss, wanted), strict=True):
            sum_ += gradient.abs()
        count += 1
    if not count:
        raise ValueError("importance needs at least one batch")
    means = [sum_ / count for sum_ in total]
    return Importance(tuple(means[: sizes.num_layers]), tuple(means[sizes.num_layers :]))


def reorder_(model: ElasticTransformer, importance: Importance) -> None:
    """Sort heads and neurons by falling importance, in place; the outputs stay equal."""
    for layer, heads, neurons in zip(
        model.layers, importance.heads, importance.neurons, strict=True
    ):
        assert isinstance(layer, Layer)
        head_order = heads.argsort(descending=True, stable=True)
        units = torch.arange(layer.attn.q.weight.shape[0]).view(-1, layer.attn.head_dim)
        _permute_(layer.attn.out.weight, units[head_order].flatten(), dim=1)
        for projection in (layer.attn.q, layer.attn.k, layer.attn.v):
            _permute_(projection.weight, units[head_order].flatten(), dim=0)
            _permute_(projection.bias, units[head_order].flatten(), dim=0)
        order = neurons.argsort(descending=True, stable=True)
        _permute_(layer.ffn.up.weight, order, dim=0)
        _permute_(layer.ffn.up.bias, order, dim=0)
        _permute_(layer.ffn.down.weight, order, dim=1)


def _permute_(parameter: Tensor, order: Tensor, dim: int) -> None:
    with torch.no_grad():
        parameter.copy_(parameter.index_select(dim, order))


def rank_layers(damage: Callable[[SubnetConfig], float], full: SubnetConfig) -> tuple[int, ...]:
    """Layers from the most to the least important, by greedy elimination.

    Args:
        damage: how far a subnet is from the whole network; the layer whose loss does least damage
            goes next.
    """
    kept = list(full.layers)
    dropped: list[int] = []
    while len(kept) > 1:
        costs = {layer: damage(_keep(full, [k for k in kept if k != layer])) for layer in kept}
        least = min(kept, key=lambda layer: costs[layer])
        kept.remove(least)
        dropped.append(least)
    return tuple(kept + dropped[::-1])


def _keep(full: SubnetConfig, layers: list[int]) -> SubnetConfig:
    return SubnetConfig(
        layers=tuple(layers),
        num_heads=tuple(full.num_heads[i] for i in layers),
        ffn_dim=tuple(full.ffn_dim[i] for i in layers),
        precision=full.precision,
    )
