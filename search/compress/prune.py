"""Structured pruning: heads, neurons, layers and features removed, what is left a smaller network.

All heads and neurons of a network compete with each other: those go first that matter least for
the FLOPs that they cost. What remains is a `SubnetConfig` again, which a predictor prices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from search.compress.configs import PruneConfig
from search.compress.network import Compressed, StageData, copied
from search.costs import flops
from search.model.linears import InputNorms
from search.model.reorder import Importance, falling, measure_importance, rank_layers, reorder_
from search.model.transformer import ElasticTransformer
from search.shape import ModelShape
from search.space import WIDTH_MULTIPLE, SubnetConfig
from search.training.tasks import task_of
from search.training.together import divergences


def prune(network: Compressed, config: PruneConfig, data: StageData) -> Compressed:
    """The network with the units removed that `config` says, its outputs changed as little as
    importance can tell."""
    wanted = config.keep * network.flops(data.seq_len)
    network = _with_fewer_layers(network, config.num_layers, data)
    network = _with_narrower_stream(network, config.embed_dim)
    return prune_units(network, wanted, IMPORTANCES[config.importance], data)


def prune_units(
    network: Compressed, wanted_flops: float, importance_of: ImportanceOf, data: StageData
) -> Compressed:
    """Heads and neurons removed until the network has `wanted_flops`, or one head and
    `WIDTH_MULTIPLE` neurons are left of every layer."""
    model = network.model
    importance = importance_of(model, data)
    # Features keep their places: they are compared with the teacher's, one by one.
    places = torch.arange(len(importance.features), 0, -1)
    model = copied(model)
    reorder_(model, replace(importance, features=places))
    sizes = cheapest_sizes(
        model.shape, network.subnet.renumbered(), importance, wanted_flops, data.seq_len
    )
    sorted_ = replace(network, model=model).with_sorted_heads([*map(falling, importance.heads)])
    return sorted_.smaller(sizes)


# --- how many units each layer keeps ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Unit:
    """The least important group that a layer has left: a head with its key and value, or a block
    of neurons."""

    layer: int
    is_head: bool
    worth: float  # importance for a FLOP


def cheapest_sizes(
    shape: ModelShape,
    sizes: SubnetConfig,
    importance: Importance,
    wanted_flops: float,
    seq_len: int,
) -> SubnetConfig:
    """`sizes` with the units taken away that are worth least, until `wanted_flops` are reached."""
    while flops(shape, sizes, seq_len=seq_len) > wanted_flops:
        units = [*_last_units(shape, sizes, importance, seq_len)]
        if not units:
            break
        least = min(units, key=lambda unit: unit.worth)
        sizes = _without(shape, sizes, least)
    return sizes


def _last_units(
    shape: ModelShape, sizes: SubnetConfig, importance: Importance, seq_len: int
) -> list[_Unit]:
    units = []
    whole = flops(shape, sizes, seq_len=seq_len)
    for layer in range(sizes.num_layers):
        heads = importance.heads[layer].sort(descending=True).values
        neurons = importance.neurons[layer].sort(descending=True).values
        num_groups = sizes.num_heads[layer] // shape.queries_per_group
        ends = {
            True: (float(heads[num_groups - 1]), num_groups > 1),
            False: (
                float(neurons[_block_start(sizes.ffn_dim[layer]) : sizes.ffn_dim[layer]].sum()),
                sizes.ffn_dim[layer] > WIDTH_MULTIPLE,
            ),
        }
        for is_head, (matters, may_go) in ends.items():
            if may_go:
                unit = _Unit(layer, is_head, 0.0)
                saved = whole - flops(shape, _without(shape, sizes, unit), seq_len=seq_len)
                units.append(replace(unit, worth=matters / saved))
    return units


def _block_start(ffn_dim: int) -> int:
    """Where the last block begins: what is left is a multiple of what kernels like."""
    return (ffn_dim - 1) // WIDTH_MULTIPLE * WIDTH_MULTIPLE


def _without(shape: ModelShape, sizes: SubnetConfig, unit: _Unit) -> SubnetConfig:
    if unit.is_head:
        fewer = sizes.num_heads[unit.layer] - shape.queries_per_group
        return replace(sizes, num_heads=_changed(sizes.num_heads, unit.layer, fewer))
    fewer = _block_start(sizes.ffn_dim[unit.layer])
    return replace(sizes, ffn_dim=_changed(sizes.ffn_dim, unit.layer, fewer))


def _changed(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])


# --- layers and the stream ----------------------------------------------------------------------


def _with_fewer_layers(network: Compressed, count: int, data: StageData) -> Compressed:
    """Those whose loss does least damage go."""
    sizes = network.subnet.renumbered()
    if not 0 < count < sizes.num_layers:
        return network
    rows = data.task.train.spread(data.num_batches * data.task.batch_size)

    def damages(subnets: Sequence[SubnetConfig]) -> list[float]:
        return divergences(network.model, rows, subnets)

    return network.smaller(sizes.keeping(sorted(rank_layers(damages, sizes)[:count])))


def _with_narrower_stream(network: Compressed, embed_dim: int) -> Compressed:
    """The stream's first features: a model that was reordered has the most important there."""
    sizes = network.subnet.renumbered()
    if not 0 < embed_dim < sizes.width_in(network.model.shape):
        return network
    return network.smaller(replace(sizes, embed_dim=embed_dim))


# --- importance ---------------------------------------------------------------------------------

ImportanceOf = Callable[[ElasticTransformer, StageData], Importance]


def _first_order(model: ElasticTransformer, data: StageData) -> Importance:
    return measure_importance(model, data.batches_for(model), task_of(model.shape).loss)


def _magnitude(model: ElasticTransformer, _data: StageData) -> Importance:
    """Norm of all weights that go with a unit (Li et al., arXiv 1608.08710, section 3.1)."""
    weights = dict(model.named_parameters())
    return _per_layer(model, lambda name, axis: weights[name].detach().square().sum(1 - axis))


def _activation(model: ElasticTransformer, data: StageData) -> Importance:
    """Norm of what a unit contributes: of its inputs to the matrix that reads it, times that
    matrix's column (of a head, over its features)."""
    norms = InputNorms(model)
    data.read_under(model, norms.around)
    weights = dict(model.named_parameters())

    def contribution(name: str, axis: int) -> Tensor:
        if axis == 0:  # a matrix that writes the unit: what it says is seen where it is read
            return torch.zeros(len(weights[name]))
        return weights[name].detach().square().sum(0) * norms[name].square()

    return _per_layer(model, contribution)


IMPORTANCES: Mapping[str, ImportanceOf] = {
    "first-order": _first_order,
    "magnitude": _magnitude,
    "activation": _activation,
}


def _per_layer(model: ElasticTransformer, squares_of: Callable[[str, int], Tensor]) -> Importance:
    """Importance from a square for each unit of every matrix.

    Layers differ in scale, which says nothing of importance: each layer's heads and neurons are
    divided by their mean.

    Args:
        squares_of: of a matrix's name and the axis that its units are on, (units,).
    """
    sizes, shape = model.sizes, model.shape
    heads, neurons = [], []
    for layer in range(sizes.num_layers):
        attn, ffn = f"layers.{layer}.attn", f"layers.{layer}.ffn"
        groups = sizes.num_heads[layer] // shape.queries_per_group
        writers = ((f"{attn}.{part}.weight", 0) for part in ("q", "k", "v"))
        of_heads = [
            squares_of(name, axis).view(groups, -1).sum(1)
            for name, axis in (*writers, (f"{attn}.out.weight", 1))
        ]
        gates = ((f"{ffn}.gate.weight", 0),) if shape.is_gated else ()
        of_neurons = [
            squares_of(name, axis)
            for name, axis in (*gates, (f"{ffn}.up.weight", 0), (f"{ffn}.down.weight", 1))
        ]
        heads.append(_normed(of_heads))
        neurons.append(_normed(of_neurons))
    features = torch.arange(sizes.width_in(shape), 0, -1).float()
    return Importance(tuple(heads), tuple(neurons), features)


def _normed(squares: Sequence[Tensor]) -> Tensor:
    norms = torch.stack(list(squares)).sum(0).sqrt()
    return norms / norms.mean().clamp(min=1e-12)
