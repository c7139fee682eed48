"""The model of quality: right about what it was shown, and honest about what it was not."""

from __future__ import annotations

import random

import numpy as np
import pytest

from search.genotypes import all_networks
from search.space import SearchSpace, SubnetConfig
from search.surrogate import Surrogate, describe
from tests.search.landscape import Landscape

SPACE = SearchSpace(
    num_layers=(2, 3, 4),
    num_heads=(1, 2, 4),
    ffn_dim=(16, 32, 64),
    precision=("fp32", "int8"),
    layer_order=(3, 0, 2, 1),
)
NETWORKS = [subnet for _, subnet in all_networks(SPACE)]


def split(landscape: Landscape, count: int, seed: int = 0) -> tuple[Surrogate, list[SubnetConfig]]:
    """A model of `count` random networks, and a few hundred others."""
    networks = random.Random(seed).sample(NETWORKS, count + 300)
    shown = networks[:count]
    values = np.array([landscape.quality(subnet) for subnet in shown])
    return Surrogate.fit(describe(SPACE, shown), values), networks[count:]


def test_different_networks_are_described_differently() -> None:
    grouped = SPACE.with_choices(
        {"embed_dim": (16, 32), "precision_groups": 2, "num_layers": (2,)}
    )
    networks = [subnet for _, subnet in all_networks(grouped)]
    described = describe(grouped, networks)
    assert len(np.unique(described, axis=0)) == len(networks)
    assert described.min() >= 0
    assert described.max() <= 1


def test_it_orders_networks_that_it_never_saw() -> None:
    landscape = Landscape(SPACE, seed=2)
    model, others = split(landscape, 100)
    mean, _ = model.predict(describe(SPACE, others))
    truth = np.array([landscape.quality(subnet) for subnet in others])
    assert np.corrcoef(mean, truth)[0, 1] > 0.97


@pytest.mark.parametrize("whim", [0.0, 0.02])
def test_its_deviations_are_as_wide_as_its_errors(whim: float) -> None:
    within = []
    for seed in range(4):
        landscape = Landscape(SPACE, seed=seed, whim=whim)
        model, others = split(landscape, 80, seed)
        mean, deviation = model.predict(describe(SPACE, others))
        truth = np.array([landscape.quality(subnet) for subnet in others])
        within.append(np.mean(np.abs(truth - mean) <= 1.645 * deviation))
    assert 0.8 <= np.mean(within) <= 0.98


def test_asked_together_or_each_by_itself_it_says_the_same() -> None:
    model, others = split(Landscape(SPACE, seed=1), 50)
    features = describe(SPACE, others[:20])
    mean, deviation = model.predict(features)
    belief = model.believe(features)
    assert belief.mean == pytest.approx(mean)
    assert belief.deviation == pytest.approx(deviation)


def test_having_seen_a_network_it_is_surer_of_it_and_of_its_likes() -> None:
    model, others = split(Landscape(SPACE, seed=1, whim=0.0), 20)
    before = model.believe(describe(SPACE, others[:30]))
    after = before.having_seen(7)
    assert (after.deviation <= before.deviation + 1e-12).all()
    assert after.deviation[7] == pytest.approx(before.noise**0.5, rel=0.5)
    assert (after.mean == before.mean).all()


def test_equal_values_are_no_error() -> None:
    features = describe(SPACE, NETWORKS[:10])
    mean, deviation = Surrogate.fit(features, np.full(10, 0.5)).predict(features)
    assert mean == pytest.approx(np.full(10, 0.5))
    assert np.isfinite(deviation).all()


def test_two_networks_are_enough_to_begin_with() -> None:
    model = Surrogate.fit(describe(SPACE, NETWORKS[:2]), np.array([0.5, 0.6]))
    mean, deviation = model.predict(describe(SPACE, NETWORKS[:5]))
    assert np.isfinite([mean, deviation]).all()
