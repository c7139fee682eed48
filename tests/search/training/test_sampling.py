from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from search.errors import InvalidInput
from search.space import SearchSpace, SubnetConfig
from search.training.sampling import Sampling, SubnetSampler, updates_per_choice
from tests.search.small import SHAPE, SPACE

WIDE = SearchSpace.for_shape(SHAPE, "wide")


def sampled(
    steps: int, space: SearchSpace = SPACE, *, seed: int = 7, **options: object
) -> list[list[SubnetConfig]]:
    sampling = Sampling(**options)  # type: ignore[arg-type]
    sampler = SubnetSampler(space, sampling, total_steps=steps, seed=seed)
    return [sampler.subnets_at(step) for step in range(steps)]


def test_a_sandwich_is_the_largest_the_smallest_and_random_ones() -> None:
    steps = sampled(6, num_random=2, largest_every=3)
    smallest, largest = (s.with_precision("fp32") for s in (SPACE.smallest, SPACE.largest))
    assert [subnets[0] == largest for subnets in steps] == [True, False, False] * 2
    assert [len(subnets) for subnets in steps] == [4, 3, 3] * 2
    assert all(subnets[-3] == smallest for subnets in steps)
    assert len({tuple(subnets[-2:]) for subnets in steps}) == 6


def test_uniform_sampling_trains_random_ones_only() -> None:
    steps = sampled(40, strategy="uniform", num_random=3)
    assert all(len(subnets) == 3 for subnets in steps)
    assert len({subnet for subnets in steps for subnet in subnets}) > 60


def test_every_machine_and_every_resumed_run_samples_the_same() -> None:
    assert sampled(20, WIDE) == sampled(20, WIDE)
    assert sampled(20, WIDE) != sampled(20, WIDE, seed=8)


@pytest.mark.parametrize("is_balanced", [True, False])
def test_what_is_sampled_belongs_to_the_space_and_trains_in_fp32(is_balanced: bool) -> None:
    for subnet in (s for step in sampled(30, WIDE, is_balanced=is_balanced) for s in step):
        assert WIDE.contains(subnet)
        assert subnet.precision == "fp32"


def test_balanced_sampling_trains_every_choice_equally_often() -> None:
    """24 draws are whole rounds of genes with 2, 3 and 4 choices."""
    drawn = [s for step in sampled(12, WIDE, strategy="uniform", num_random=2) for s in step]
    depths = Counter(subnet.num_layers for subnet in drawn)
    widths = Counter(subnet.embed_dim for subnet in drawn)
    first = WIDE.layer_order[0]  # kept at every depth
    heads = Counter(subnet.num_heads[subnet.layers.index(first)] for subnet in drawn)
    for counts, choices in ((depths, WIDE.num_layers), (widths, WIDE.embed_dim)):
        assert counts == dict.fromkeys(choices, 24 // len(choices))
    assert heads == dict.fromkeys(WIDE.num_heads, 24 // len(WIDE.num_heads))


def test_genes_are_balanced_independently_of_each_other() -> None:
    drawn = [s for step in sampled(240, strategy="uniform") for s in step if s.num_layers == 3]
    assert len({(s.num_heads, s.ffn_dim) for s in drawn}) > 0.9 * len(drawn)


def test_widths_come_first_at_full_depth_then_depths_too() -> None:
    steps = sampled(20, width_first=0.5)
    depth = SPACE.num_layers[-1]
    early = [s.num_layers for step in steps[:10] for s in step]
    late = [s.num_layers for step in steps[10:] for s in step]
    assert set(early) == {depth}
    assert set(late) == set(SPACE.num_layers)
    assert min(s.num_heads[0] for step in steps[:10] for s in step) == SPACE.num_heads[0]


def test_updates_of_the_rarest_choice_are_what_sampling_does() -> None:
    options = {"strategy": "uniform", "num_random": 2}
    total = 480
    expected = updates_per_choice(SPACE, Sampling(**options), total)  # type: ignore[arg-type]
    last = SPACE.layer_order[-1]
    counts: Counter[int] = Counter()
    for subnet in (s for step in sampled(total, **options) for s in step):
        if last in subnet.layers:
            counts[subnet.ffn_dim[subnet.layers.index(last)]] += 1
    assert len(counts) == len(SPACE.ffn_dim) > len(SPACE.num_heads)
    assert expected == pytest.approx(sum(counts.values()) / len(counts), rel=0.05)


def test_a_longer_training_or_a_smaller_space_trains_each_choice_more() -> None:
    usual = updates_per_choice(SPACE, Sampling(), 100)
    assert updates_per_choice(SPACE, Sampling(), 200) == 2 * usual
    assert updates_per_choice(SPACE, Sampling(num_random=3), 100) == 3 * usual
    fewer = replace(SPACE, num_heads=SPACE.num_heads[-1:], ffn_dim=SPACE.ffn_dim[-1:])
    assert updates_per_choice(fewer, Sampling(), 100) > usual


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"strategy": "greedy"}, "training.sampling"),
        ({"strategy": "uniform", "num_random": 0}, "training.num_random"),
        ({"largest_every": 0}, "training.largest_every"),
        ({"width_first": 1.0}, "training.width_first"),
    ],
)
def test_what_cannot_be_sampled_is_refused(options: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Sampling(**options)  # type: ignore[arg-type]
    assert caught.value.field == field
