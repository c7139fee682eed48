"""Importance of heads, neurons, features and layers; the permutation that makes subnets prefixes.

Importance is first-order (Michel et al., arXiv 1905.10650, section 4.1; DynaBERT, arXiv
2004.04037, section 2.1): how much the loss would change, by its gradient, if the unit were gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from search.model.transformer import Batch, ElasticTransformer, Gates, Layer, Output
from search.space import SubnetConfig

LossOf = Callable[[Output, Tensor], Tensor]
"""Of a network's output and the labels, as the model's task has it."""

DamagesOf = Callable[[Sequence[SubnetConfig]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Importance:
    heads: tuple[Tensor, ...]  # per layer, one for each key-value head and its queries
    neurons: tuple[Tensor, ...]  # per layer (ffn_dim,)
    features: Tensor  # (embed_dim,)


def measure_importance(
    model: ElasticTransformer, batches: Iterable[tuple[Batch, Tensor]], loss_of: LossOf
) -> Importance:
    """Mean over the batches of |d loss / d gate| for every unit, gates being 1."""
    model.eval()
    sizes = model.sizes
    queries = model.shape.queries_per_group
    ones = partial(torch.ones, requires_grad=True, device=next(model.parameters()).device)
    gates = Gates(
        tuple(ones(n // queries) for n in sizes.num_heads),
        tuple(ones(n) for n in sizes.ffn_dim),
        ones(sizes.width_in(model.shape)),
    )
    wanted = [*gates.heads, *gates.neurons, gates.features]
    total = [torch.zeros_like(gate) for gate in wanted]
    count = 0
    for batch, labels in batches:
        loss = loss_of(model(batch, gates=gates), labels)
        for sum_, gradient in zip(total, torch.autograd.grad(loss, wanted), strict=True):
            sum_ += gradient.abs()
        count += 1
    if not count:
        raise ValueError("importance needs at least one batch")
    means = [(sum_ / count).cpu() for sum_ in total]
    depth = sizes.num_layers
    return Importance(tuple(means[:depth]), tuple(means[depth:-1]), means[-1])


def reorder_(model: ElasticTransformer, importance: Importance) -> None:
    """Sort heads, neurons and features by falling importance, in place; outputs stay equal.

    Features that are the output themselves, those of an embedding, keep their places.
    """
    for layer, heads, neurons in zip(
        model.layers, importance.heads, importance.neurons, strict=True
    ):
        assert isinstance(layer, Layer)
        _reorder_heads_(layer, falling(heads))
        _reorder_neurons_(layer, falling(neurons))
    if model.shape.has_head:
        _reorder_features_(model, falling(importance.features))


def rank_layers(damages: DamagesOf, full: SubnetConfig) -> tuple[int, ...]:
    """Layers from the most to the least important, by greedy elimination.

    Args:
        damages: how far each of some subnets is from the whole network; the layer whose loss does
            least damage goes next.
    """
    kept = list(full.layers)
    dropped: list[int] = []
    while len(kept) > 1:
        without = [full.keeping([k for k in kept if k != layer]) for layer in kept]
        costs = dict(zip(kept, damages(without), strict=True))
        least = min(kept, key=lambda layer: costs[layer])
        kept.remove(least)
        dropped.append(least)
    return tuple(kept + dropped[::-1])


def _reorder_heads_(layer: Layer, order: Tensor) -> None:
    """Each key-value head moves with the query heads that share it."""
    attn = layer.attn
    for projection in (attn.q, attn.k, attn.v):
        units = torch.arange(len(projection.weight)).view(len(order), -1)[order].flatten()
        _permute_linear_(projection, units, dim=0)
    units = torch.arange(attn.out.weight.shape[1]).view(len(order), -1)[order].flatten()
    _permute_linear_(attn.out, units, dim=1)


def _reorder_neurons_(layer: Layer, order: Tensor) -> None:
    for projection in (layer.ffn.gate, layer.ffn.up):
        if projection is not None:
            _permute_linear_(projection, order, dim=0)
    _permute_linear_(layer.ffn.down_low or layer.ffn.down, order, dim=1)


def _reorder_features_(model: ElasticTransformer, order: Tensor) -> None:
    """The stream between layers: whatever reads or writes it is permuted alike."""
    embeddings = model.embeddings
    if model.shape.reads_images:
        _permute_linear_(embeddings.patch, order, dim=0)
        _permute_(embeddings.prefix, order, dim=1)
    tables = ["position", "token_type"]
    if model.shape.word_rank:
        _permute_linear_(embeddings.spread, order, dim=0)
    else:
        tables.append("word")
    for name in tables:
        if hasattr(embeddings, name):
            _permute_(getattr(embeddings, name).weight, order, dim=1)
    norms = [embeddings.norm, model.norm]
    for layer in model.layers:
        assert isinstance(layer, Layer)
        norms += [layer.attn.norm, layer.ffn.norm]
        ffn = layer.ffn
        readers = (ffn.gate_low, ffn.up_low) if ffn.up_low is not None else (ffn.gate, ffn.up)
        for reader in (layer.attn.q, layer.attn.k, layer.attn.v, *readers):
            if reader is not None:
                _permute_linear_(reader, order, dim=1)
        for writer in (layer.attn.out, layer.ffn.down):
            _permute_linear_(writer, order, dim=0)
    for norm in norms:
        if norm is not None:
            for parameter in norm.parameters():
                _permute_(parameter, order, dim=0)
    if model.head is not None:
        _permute_linear_(model.head, order, dim=1)


def falling(importance: Tensor) -> Tensor:
    """Places from the most to the least important: the order in which `reorder_` puts units."""
    return importance.argsort(descending=True, stable=True)


def _permute_linear_(linear: nn.Linear, order: Tensor, dim: int) -> None:
    _permute_(linear.weight, order, dim)
    if dim == 0 and linear.bias is not None:
        _permute_(linear.bias, order, 0)


def _permute_(parameter: Tensor, order: Tensor, dim: int) -> None:
    with torch.no_grad():
        parameter.copy_(parameter.index_select(dim, order))
