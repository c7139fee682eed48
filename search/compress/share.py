"""Layers that share their weights: the file holds them once, they run as often as before."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from search.compress.configs import ShareLayersConfig
from search.compress.network import Compressed, StageData, blank
from search.compress.suitability import check_suits
from search.model.transformer import ElasticTransformer


def share_layers(network: Compressed, config: ShareLayersConfig, _data: StageData) -> Compressed:
    """The network with one set of weights for each group of neighbours.

    Raises:
        InvalidInput: they share already, there are fewer layers than a group has, or those of a
            group differ in heads or neurons.
    """
    model = network.model
    num_layers = model.sizes.num_layers
    check_suits(config, replace(model.shape, num_layers=num_layers))
    group = config.group or num_layers
    return replace(network, model=with_shared_layers(model, group, start=config.start))


def with_shared_layers(
    model: ElasticTransformer, group: int, *, start: str = "first"
) -> ElasticTransformer:
    """A copy whose layers have the weights of the `first` of their group, or the `mean` of it.

    Raises:
        InvalidInput: layers of a group differ in heads or neurons.
    """
    smaller = blank(model, replace(model.shape, layers_per_group=group))
    weights: dict[str, Tensor] = model.state_dict()
    count = model.sizes.num_layers

    def started(name: str) -> Tensor:
        if not name.startswith("layers."):
            return weights[name]
        _, place, part = name.split(".", 2)
        first = int(place) * group
        members = range(first, min(first + group, count))
        own = [weights[f"layers.{layer}.{part}"] for layer in members]
        if start == "first":
            return own[0]
        mean: Tensor = torch.stack(own).mean(0)
        return mean

    smaller.load_state_dict({name: started(name) for name in smaller.state_dict()})
    return smaller.train(model.training)
