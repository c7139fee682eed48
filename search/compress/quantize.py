"""Quantization as a stage, with training under the rounding before it is final, or without."""

from __future__ import annotations

from dataclasses import replace

from search.compress.configs import QuantizeConfig
from search.compress.network import Compressed, StageData, apply_masks_, copied
from search.compress.rounding import round_, under
from search.compress.training import copy_to_train, taught
from search.model.linears import around_linears


def quantize(network: Compressed, config: QuantizeConfig, data: StageData) -> Compressed:
    """The network with its weights as the format stores them; zeros stay zero."""
    if config.format == "int8":
        # Rounded where it runs: the model keeps its weights, the exporter rounds them alike.
        network = replace(network, subnet=network.subnet.with_precision("int8"))
        return _trained(network, config, data) if config.aware_epochs else network
    copy = copy_to_train if config.aware_epochs else copied
    network = replace(network, model=copy(network.model), format=config.format)
    if config.aware_epochs:
        with around_linears(network.model, under(config.format)):
            network = _trained(network, config, data)
    round_(network.model, config.format)
    # A binary weight is never zero; the zeros that there were stay.
    apply_masks_(network.model, network.masks)
    return network


def _trained(network: Compressed, config: QuantizeConfig, data: StageData) -> Compressed:
    model = copied(network.model) if config.format == "int8" else network.model
    return taught(
        replace(network, model=model),
        data,
        num_steps=data.num_steps(config.aware_epochs),
        learning_rate=config.learning_rate,
        before_step=lambda _: apply_masks_(model, network.masks),
    )
