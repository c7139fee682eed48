from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from search.compress.configs import DistillConfig, SparsifyConfig
from search.compress.network import Compressed
from search.compress.sparsify import masks_of, sparsify, sparsity_at, sparsity_of
from search.compress.training import distill
from search.model.linears import layer_matrix_names
from search.training.evaluate import evaluate
from tests.search.compress.data import network, ordered, stage_data, teacher


def quality(compressed: Compressed) -> float:
    return evaluate(compressed.model, ordered(256, seed=3)).value


@pytest.mark.parametrize("score", ["magnitude", "wanda", "second-order"])
@pytest.mark.parametrize("sparsity", [0.3, 0.8])
def test_as_many_weights_are_zero_as_was_asked_for(score: str, sparsity: float) -> None:
    after = sparsify(network(), SparsifyConfig(sparsity=sparsity, score=score), stage_data())
    assert sparsity_of(after.model) == pytest.approx(sparsity, abs=0.02)
    assert after.num_zeros == pytest.approx(sparsity * num_weights(), rel=0.05)


@pytest.mark.parametrize("score", ["magnitude", "wanda", "second-order"])
def test_two_of_every_four_neighbours_are_zero(score: str) -> None:
    config = SparsifyConfig(sparsity=0.5, score=score, pattern="2:4")
    after = sparsify(network(), config, stage_data())
    parameters = dict(after.model.named_parameters())
    for name in layer_matrix_names(after.model):
        groups = (parameters[name] != 0).view(-1, 4).sum(1)
        assert int(groups.max()) <= 2


def test_a_network_is_not_changed_by_what_is_made_of_it() -> None:
    before = network()
    for config in (SparsifyConfig(), SparsifyConfig(score="movement", epochs=0.2)):
        sparsify(before, config, stage_data())
    assert sparsity_of(before.model) < 0.01


def test_the_least_weights_go_where_the_score_looks() -> None:
    scores = {"a": torch.tensor([[1.0, 2], [3, 4]]), "b": torch.tensor([[10.0, 20], [30, 40]])}

    def kept(score: str) -> dict[str, list[list[bool]]]:
        config = SparsifyConfig(sparsity=0.5, score=score, epochs=1)
        return {name: mask.tolist() for name, mask in masks_of(scores, config).items()}

    assert kept("magnitude") == {key: [[False, False], [True, True]] for key in "ab"}
    assert kept("wanda") == {key: [[False, True], [False, True]] for key in "ab"}
    assert kept("second-order") == {"a": [[False] * 2] * 2, "b": [[True] * 2] * 2}


def test_second_order_loses_less_than_magnitude_at_equal_sparsity() -> None:
    losses = {
        score: evaluate(
            sparsify(network(), SparsifyConfig(sparsity=0.6, score=score), stage_data()).model,
            ordered(256, seed=3),
        ).loss
        for score in ("magnitude", "second-order")
    }
    assert losses["second-order"] < losses["magnitude"]


@pytest.mark.parametrize("score", ["magnitude", "movement"])
def test_with_training_a_network_keeps_more_than_at_once(score: str) -> None:
    at_once = sparsify(network(), SparsifyConfig(sparsity=0.9), stage_data())
    config = SparsifyConfig(sparsity=0.9, score=score, epochs=6, learning_rate=2e-3)
    trained = sparsify(network(), config, stage_data())
    assert sparsity_of(trained.model) == pytest.approx(0.9, abs=0.02)
    assert quality(trained) > quality(at_once) + 0.05


def test_zeros_stay_zero_in_a_later_distillation() -> None:
    sparse = sparsify(network(), SparsifyConfig(sparsity=0.8), stage_data())
    taught = distill(sparse, DistillConfig(epochs=2, learning_rate=2e-3), stage_data())
    assert sparsity_of(taught.model) == pytest.approx(0.8, abs=0.02)
    assert quality(taught) > quality(sparse)
    assert sparsity_of(sparse.model) == pytest.approx(0.8, abs=0.02)


def test_sparsity_rises_ever_more_slowly_and_stands_still_in_the_end() -> None:
    course = [sparsity_at(step, 90, 0.9) for step in range(0, 91, 10)]
    rises = [b - a for a, b in pairwise(course)]
    assert course[0] == 0
    assert rises[:6] == sorted(rises[:6], reverse=True)
    assert course[6:] == [pytest.approx(0.9)] * 4


def num_weights() -> int:
    parameters = dict(teacher().named_parameters())
    return sum(parameters[name].numel() for name in layer_matrix_names(teacher()))
