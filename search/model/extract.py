"""A subnet as a network of its own: slices of the supernet's weights, nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from search.model.transformer import ElasticTransformer, Layer
from search.space import SubnetConfig


def extract(supernet: ElasticTransformer, subnet: SubnetConfig) -> ElasticTransformer:
    """A copy of `subnet` that is physically as small as it says; its outputs are equal."""
    small = ElasticTransformer(
        supernet.shape, subnet, dropout=supernet.dropout, weight_bits=supernet.weight_bits
    )
    small.embeddings.load_state_dict(supernet.embeddings.state_dict())
    small.head.load_state_dict(supernet.head.state_dict())
    for place, index in enumerate(subnet.layers):
        target, source = small.layers[place], supernet.layers[index]
        assert isinstance(target, Layer)
        assert isinstance(source, Layer)
        with torch.no_grad():
            for name, parameter in target.named_parameters():
                stored = source.get_parameter(name)
                parameter.copy_(stored[tuple(slice(size) for size in parameter.shape)])
    return small


def to_arrays(model: ElasticTransformer) -> dict[str, npt.NDArray[np.float32]]:
    """The weights by name, as `search.export.graph` wants them."""
    return {name: p.detach().float().numpy() for name, p in model.named_parameters()}
