"""Which structures are fast enough, and which searched network is chosen."""

from __future__ import annotations

from benchmarks.found_subnets import _best_within
from benchmarks.small_search import Found
from benchmarks.structures import Structure, largest_within
from benchmarks.wanted import SMALLEST, SPARSE
from search.compress.configs import PruneConfig
from search.space import SubnetConfig
from tests.search import small

FULL = SubnetConfig.full(small.SHAPE)


def structure(keep: float, num_layers: int, int8_ms: float) -> Structure:
    config = PruneConfig(keep=keep, num_layers=num_layers)
    return Structure(config=config, subnet=FULL, int8_ms=int8_ms)


def test_every_depth_keeps_as_much_as_its_latency_allows() -> None:
    found = [
        structure(0.5, 6, 1.2),
        structure(0.4, 6, 0.9),
        structure(0.3, 6, 0.7),
        structure(0.5, 3, 0.96),
        structure(0.4, 2, 1.1),
    ]
    chosen = largest_within(found, 1.0)
    assert {(one.config.num_layers, one.config.keep) for one in chosen} == {(6, 0.4), (3, 0.5)}


def test_a_latency_on_the_edge_of_the_budget_is_not_taken() -> None:
    assert largest_within([structure(0.5, 6, 0.99)], 1.0) == []


def test_the_best_network_within_a_limit_is_chosen_or_none() -> None:
    networks = list(small.SPACE.uniform())
    found = [Found(subnet, float(place), place / 10) for place, subnet in enumerate(networks[:5])]
    assert _best_within(small.SPACE, found, 3.0) == networks[3]
    assert _best_within(small.SPACE, found, -1.0) is None


def test_a_figure_is_met_from_the_right_side_and_never_by_nothing() -> None:
    assert SPARSE.outcome(1.2)["is_met"]
    assert not SPARSE.outcome(0.9)["is_met"]
    assert SMALLEST.outcome(9.0)["is_met"]
    assert not SMALLEST.outcome(11.0)["is_met"]
    assert not SMALLEST.outcome(None)["is_met"]
