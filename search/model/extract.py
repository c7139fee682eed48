"""A subnet as a network of its own: slices of the supernet's weights, nothing else."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import torch

from search.errors import InvalidInput
from search.model.transformer import ElasticTransformer
from search.space import SubnetConfig


def extract(supernet: ElasticTransformer, subnet: SubnetConfig) -> ElasticTransformer:
    """A copy of `subnet` that is physically as small as it says; its outputs are equal.

    Raises:
        InvalidInput: layers share their weights, and `subnet` keeps only some of them.
    """
    if supernet.shape.layers_per_group > 1 and subnet.layers != supernet.sizes.layers:
        raise InvalidInput("subnet.layers", "must be all: some of them share their weights")
    small = ElasticTransformer(
        supernet.shape, subnet, dropout=supernet.dropout, weight_bits=supernet.weight_bits
    )
    stored = dict(supernet.named_parameters())
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            source = stored[_name_in_supernet(name, subnet)]
            parameter.copy_(source[tuple(slice(size) for size in parameter.shape)])
    return small


def to_arrays(model: ElasticTransformer) -> dict[str, npt.NDArray[np.float32]]:
    """The weights by name, as `search.export.graph` wants them."""
    return {name: p.detach().float().numpy() for name, p in model.named_parameters()}


def _name_in_supernet(name: str, subnet: SubnetConfig) -> str:
    return re.sub(r"^layers\.(\d+)", lambda m: f"layers.{subnet.layers[int(m[1])]}", name)
