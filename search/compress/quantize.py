"""Quantization as a stage, with training under the rounding before it is final, or without."""

from __future__ import annotations

from dataclasses import replace

from search.compress.configs import QuantizeConfig
from search.compress.integer import peaks_of
from search.compress.network import Compressed, StageData, apply_masks_, copied
from search.compress.rounding import round_, under
from search.compress.suitability import check_suits
from search.compress.training import copy_to_train, taught
from search.model.linears import around_linears
from search.space import SubnetConfig
from search.training.sensitivity import choose_float_layers

SENSITIVITY_ROWS = 256


def quantize(network: Compressed, config: QuantizeConfig, data: StageData) -> Compressed:
    """The network with its weights as the format stores them; zeros stay zero.

    Raises:
        InvalidInput: the format is `int8-integer`, and a part of the network has no integer form.
    """
    if config.format == "int8":
        # Rounded where it runs: the model keeps its weights, the exporter rounds them alike.
        network = replace(network, subnet=_int8(network, config, data))
        return _trained(network, config, data) if config.aware_epochs else network
    if config.format == "int8-integer":
        return _by_integers(network, config, data)
    copy = copy_to_train if config.aware_epochs else copied
    network = replace(network, model=copy(network.model), format=config.format)
    if config.aware_epochs:
        with around_linears(network.model, under(config.format)):
            network = _trained(network, config, data)
    return _rounded(network, config)


def _int8(network: Compressed, config: QuantizeConfig, data: StageData) -> SubnetConfig:
    """Chosen before anything is trained: what is compared is the network with itself."""
    subnet = network.subnet.with_precision("int8")
    if not config.max_float_layers:
        return subnet
    chosen = choose_float_layers(
        network.model,
        subnet.renumbered(),
        data.task.train.spread(SENSITIVITY_ROWS),
        most=config.max_float_layers,
        min_agreement=config.min_agreement,
    )
    return replace(subnet, float_layers=tuple(subnet.layers[place] for place in chosen.layers))


def _by_integers(network: Compressed, config: QuantizeConfig, data: StageData) -> Compressed:
    """Trained under the rounding of int8, if at all: whole numbers have no gradient."""
    check_suits(config, network.model.shape)
    if config.aware_epochs:
        rounded = replace(network, subnet=network.subnet.with_precision("int8"))
        model = _trained(rounded, replace(config, format="int8"), data).model
        network = replace(network, model=model)
    else:
        network = replace(network, model=copied(network.model))
    network = _rounded(replace(network, format=config.format), config)
    return replace(network, peaks=peaks_of(network.model, data.task.train))


def _rounded(network: Compressed, config: QuantizeConfig) -> Compressed:
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
