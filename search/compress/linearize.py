"""Attention whose time grows with the number of tokens alone, in a network that had softmax."""

from __future__ import annotations

from dataclasses import replace

import torch

from search.compress.configs import LinearizeAttentionConfig
from search.compress.network import Compressed, StageData, blank
from search.compress.suitability import check_suits
from search.model.transformer import ElasticTransformer, Layer
from search.training.losses import hidden_error

# By which queries and keys may be multiplied: what linear attention weighs by gets sharper.
FACTORS = (1.0, 1.4, 2.0, 2.8, 4.0)


def linearize_attention(
    network: Compressed, config: LinearizeAttentionConfig, data: StageData
) -> Compressed:
    """The network with linear attention and the same weights, but that queries and keys are
    multiplied by what brings its hidden states nearest to those of before on a few batches.

    Raises:
        InvalidInput: its attention is linear already, or causal.
    """
    check_suits(config, network.model.shape)
    model = network.model.eval()
    tried = [linearized(model, factor) for factor in FACTORS]
    errors = [0.0] * len(tried)
    with torch.no_grad():
        for batch, _ in data.batches_for(model):
            wanted = model(batch)
            for place, linear in enumerate(tried):
                found = linear(batch)
                errors[place] += float(hidden_error(found, model.sizes, wanted, batch))
    return replace(network, model=tried[errors.index(min(errors))])


def linearized(model: ElasticTransformer, factor: float) -> ElasticTransformer:
    """A copy with linear attention, in evaluation mode."""
    linear = blank(model, replace(model.shape, attention="linear")).to(
        next(model.parameters()).device
    )
    linear.load_state_dict(model.state_dict())
    for layer in linear.layers:
        assert isinstance(layer, Layer)
        for projection in (layer.attn.q, layer.attn.k):
            for parameter in projection.parameters():
                parameter.data.mul_(factor)
    return linear.eval()
