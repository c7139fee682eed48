from __future__ import annotations

import random

import numpy as np

from search.choosing import FEWEST, believed_qualities, shortlist
from search.space import SearchSpace, SubnetConfig
from tests.search.small import SHAPE

SPACE = SearchSpace.for_shape(SHAPE)


def networks(count: int, seed: int = 0) -> list[SubnetConfig]:
    rng = random.Random(seed)
    return list(dict.fromkeys(SPACE.sample(rng) for _ in range(3 * count)))[:count]


def true_quality(subnet: SubnetConfig) -> float:
    return 0.7 + 0.001 * sum(subnet.ffn_dim) + 0.005 * sum(subnet.num_heads)


def test_what_is_believed_is_nearer_to_the_truth_than_what_was_seen() -> None:
    subnets = networks(80)
    truth = np.array([true_quality(subnet) for subnet in subnets])
    seen = truth + np.random.default_rng(0).normal(0, 0.03, len(truth))
    believed = believed_qualities(SPACE, subnets, seen.tolist())
    assert np.abs(believed - truth).mean() < 0.6 * np.abs(seen - truth).mean()
    luckiest = int((seen - truth).argmax())
    assert believed[luckiest] < seen[luckiest]


def test_without_noise_little_changes() -> None:
    subnets = networks(80)
    truth = np.array([true_quality(subnet) for subnet in subnets])
    believed = believed_qualities(SPACE, subnets, truth.tolist())
    np.testing.assert_allclose(believed, truth, atol=0.01)


def test_a_few_evaluations_or_equal_ones_stay_as_they_are() -> None:
    few = networks(FEWEST - 1)
    own = np.linspace(0.5, 0.9, len(few)).tolist()
    assert believed_qualities(SPACE, few, own).tolist() == own
    many = networks(30)
    assert believed_qualities(SPACE, many, [0.5] * 30).tolist() == [0.5] * 30


def test_networks_beyond_those_that_are_fitted_are_predicted() -> None:
    subnets = networks(700)
    truth = np.array([true_quality(subnet) for subnet in subnets])
    believed = believed_qualities(SPACE, subnets, truth.tolist())
    assert len(believed) == len(subnets)
    assert np.corrcoef(believed, truth)[0, 1] > 0.98


def of_depth(num_layers: int, ffn_dim: int) -> SubnetConfig:
    layers = tuple(range(num_layers))
    return SubnetConfig(
        layers=layers, num_heads=(1,) * num_layers, ffn_dim=(ffn_dim,) * num_layers
    )


def test_a_shortlist_has_the_best_of_every_depth_before_a_second_of_one() -> None:
    subnets = [of_depth(1, 16), of_depth(1, 32), of_depth(2, 16), of_depth(2, 32), of_depth(3, 16)]
    believed = [0.9, 0.95, 0.7, 0.6, 0.8]
    assert shortlist(subnets, believed, 3) == [1, 4, 2]
    assert shortlist(subnets, believed, 4) == [1, 0, 4, 2]
    assert shortlist(subnets, believed, 1) == [1]
    assert shortlist(subnets, believed, 9) == [1, 0, 4, 2, 3]
    assert shortlist([], [], 3) == []
