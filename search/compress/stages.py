"""What each stage of a recipe does: one handler for each config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from search.compress.configs import (
    DistillConfig,
    DistillRelationsConfig,
    FactorizeConfig,
    FactorizeFfnConfig,
    LinearizeAttentionConfig,
    PruneAndDistillConfig,
    PruneConfig,
    QuantizeConfig,
    ShareLayersConfig,
    SparsifyConfig,
    TrimVocabularyConfig,
)
from search.compress.factorize import factorize
from search.compress.linearize import linearize_attention
from search.compress.low_rank import factorize_ffn
from search.compress.network import Compressed, StageData
from search.compress.prune import IMPORTANCES, prune, prune_units
from search.compress.quantize import quantize
from search.compress.recipe import StageConfig
from search.compress.relations import distill_relations
from search.compress.share import share_layers
from search.compress.sparsify import sparsify
from search.compress.training import distill, taught
from search.compress.vocabulary import trim_vocabulary


def apply_stage(network: Compressed, config: StageConfig, data: StageData) -> Compressed:
    """What the stage makes of the network, which itself stays as it is.

    Args:
        data: in the ids of the original's vocabulary, whatever the network's is by now.
    """
    if type(config) in _TEACHING:
        return _TEACHING[type(config)](network, config, data)
    return _HANDLERS[type(config)](network, config, data.read_by(network))


def prune_and_distill(
    network: Compressed, config: PruneAndDistillConfig, data: StageData
) -> Compressed:
    """Every round removes what then matters least, and the network recovers before the next."""
    whole = network.flops(data.seq_len)
    num_steps = data.num_steps(config.epochs / len(config.shares))
    for round_, share in enumerate(config.shares):
        network = prune_units(network, share * whole, IMPORTANCES[config.importance], data)
        network = taught(
            network,
            replace(data, seed=data.seed + round_),
            num_steps=num_steps,
            learning_rate=config.learning_rate,
        )
    return network


# A config's handler takes that config: the tables say which.
_Handler = Callable[[Compressed, Any, StageData], Compressed]
# Those that choose a teacher take the data as they come: it reads the original's ids.
_TEACHING: dict[type[StageConfig], _Handler] = {
    DistillConfig: distill,
    DistillRelationsConfig: distill_relations,
}
_HANDLERS: dict[type[StageConfig], _Handler] = {
    PruneConfig: prune,
    PruneAndDistillConfig: prune_and_distill,
    SparsifyConfig: sparsify,
    QuantizeConfig: quantize,
    TrimVocabularyConfig: trim_vocabulary,
    FactorizeConfig: factorize,
    FactorizeFfnConfig: factorize_ffn,
    LinearizeAttentionConfig: linearize_attention,
    ShareLayersConfig: share_layers,
}
