from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from search.model.transformer import ElasticTransformer
from search.training.optimizer import (
    OptimizerSettings,
    Schedule,
    adamw,
    is_decayed,
    trained_parameters,
)
from tests.search.small import SHAPE, network

IMAGES = replace(
    SHAPE,
    family="vit",
    task="image-classification",
    vocab_size=0,
    num_token_types=0,
    image_size=8,
    patch_size=4,
    num_channels=1,
    num_prefix_tokens=1,
)


def test_the_learning_rate_rises_and_falls() -> None:
    schedule = Schedule(learning_rate=1.0, total_steps=100)
    rates = [schedule.learning_rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[100] == 0.0
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_second_stage_is_a_training_of_its_own() -> None:
    schedule = Schedule(learning_rate=1.0, total_steps=100, restart_at=40)
    first = Schedule(learning_rate=1.0, total_steps=40)
    second = Schedule(learning_rate=1.0, total_steps=60)
    rates = [schedule.learning_rate_at(step) for step in range(101)]
    assert rates[:40] == [first.learning_rate_at(step) for step in range(40)]
    assert rates[40:] == [second.learning_rate_at(step) for step in range(61)]


def test_norms_biases_and_tables_are_not_decayed() -> None:
    for shape in (SHAPE, IMAGES):
        model = ElasticTransformer(shape)
        decayed = {name for name, p in model.named_parameters() if is_decayed(name, p)}
        assert {"layers.0.attn.q.weight", "layers.2.ffn.down.weight", "head.weight"} <= decayed
        assert all(name.endswith("weight") and "norm" not in name for name in decayed)
        tables = {"embeddings.word.weight", "embeddings.position.weight", "embeddings.prefix"}
        assert not tables & decayed
    assert "embeddings.patch.weight" in decayed


def test_what_has_no_gradient_to_speak_of_shrinks_only_if_it_is_decayed() -> None:
    model = network()
    named = trained_parameters(model)
    optimizer = adamw(named, OptimizerSettings(weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in named.items()}
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    for name, parameter in named.items():
        factor = 0.95 if is_decayed(name, parameter) else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])


def test_frozen_weights_are_not_the_optimizers() -> None:
    model = network()
    model.embeddings.word.weight.requires_grad_(False)
    named = trained_parameters(model)
    optimizer = adamw(named, OptimizerSettings())
    held = sum(len(group["params"]) for group in optimizer.param_groups)
    assert held == len(named) == len(list(model.parameters())) - 1


def test_each_kind_of_model_has_its_usual_settings() -> None:
    encoder = OptimizerSettings.for_shape(SHAPE)
    decoder = OptimizerSettings.for_shape(replace(SHAPE, is_causal=True))
    vision = OptimizerSettings.for_shape(IMAGES)
    assert (encoder.weight_decay, decoder.weight_decay, vision.weight_decay) == (0.01, 0.1, 0.05)
    assert decoder.betas == (0.9, 0.95)
    assert encoder.betas == vision.betas == (0.9, 0.999)
