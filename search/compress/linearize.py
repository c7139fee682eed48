"""Attention whose time grows with the number of tokens alone, in a network that had softmax."""

from __future__ import annotations

from dataclasses import replace

from search.compress.configs import LinearizeAttentionConfig
from search.compress.network import Compressed, StageData
from search.compress.suitability import check_suits
from search.model.transformer import ElasticTransformer


def linearize_attention(
    network: Compressed, config: LinearizeAttentionConfig, _data: StageData
) -> Compressed:
    """The network with the same weights, that mix tokens by linear attention.

    Raises:
        InvalidInput: its attention is linear already, or causal.
    """
    model = network.model
    check_suits(config, model.shape)
    linear = ElasticTransformer(
        replace(model.shape, attention="linear"),
        model.sizes,
        dropout=model.dropout,
        weight_bits=model.weight_bits,
    )
    linear.load_state_dict(model.state_dict())
    return replace(network, model=linear.train(model.training))
