from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from search.costs import num_params
from search.space import SearchSpace, SubnetConfig
from search.training.convergence import (
    begin_report,
    budget_warning,
    describe,
    reference_subnets,
    with_point,
)
from search.training.sampling import Sampling
from search.training.tasks import task_of
from tests.search.small import SHAPE, SPACE

NAMES = ["smallest", "lower", "middle", "upper", "largest"]


def test_five_subnets_stand_for_the_space_always_the_same() -> None:
    subnets = reference_subnets(SPACE, SHAPE)
    assert list(subnets) == NAMES
    assert subnets == reference_subnets(SearchSpace.from_dict(SPACE.to_dict()), SHAPE)
    sizes = [num_params(SHAPE, subnet) for subnet in subnets.values()]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 5
    for subnet in subnets.values():
        assert SPACE.contains(subnet)
        assert subnet.precision == "fp32"
    middle = num_params(SHAPE, subnets["middle"])
    assert middle == pytest.approx((sizes[0] + sizes[-1]) / 2, rel=0.05)


def test_a_space_of_two_has_two() -> None:
    space = SearchSpace(
        num_layers=(1, 3),
        num_heads=(4,),
        ffn_dim=(64,),
        precision=("fp32",),
        layer_order=(2, 0, 1),
    )
    assert list(reference_subnets(space, SHAPE)) == ["smallest", "largest"]


def report(*qualities: float, steps: tuple[int, ...] = (0, 30, 70, 100)) -> dict[str, Any]:
    """Of a training in which all subnets are equally good."""
    data = begin_report(SPACE, SHAPE, 0.9)
    for step, quality in zip(steps, qualities, strict=True):
        data = with_point(data, step, lambda subnet, quality=quality: quality)  # type: ignore[misc]
    return data


def test_the_gap_is_how_far_below_the_teacher_each_ends() -> None:
    found = report(0.5, 0.6, 0.8, 0.85)
    assert [point["step"] for point in found["points"]] == [0, 30, 70, 100]
    assert found["gap"] == pytest.approx(dict.fromkeys(NAMES, 0.05))
    assert found["teacher"] == 0.9


def test_each_quality_is_that_of_the_subnet_of_its_name() -> None:
    sizes = {s.fingerprint: num_params(SHAPE, s) for s in reference_subnets(SPACE, SHAPE).values()}
    found = with_point(
        begin_report(SPACE, SHAPE, 0.9), 7, lambda subnet: sizes[subnet.fingerprint]
    )
    for name, data in found["subnets"].items():
        assert found["points"][0][name] == num_params(SHAPE, SubnetConfig.from_dict(data))


def test_a_training_has_settled_when_its_last_quarter_changed_nothing() -> None:
    assert report(0.5, 0.6, 0.84, 0.842)["is_settled"]
    assert not report(0.5, 0.6, 0.8, 0.85)["is_settled"]
    assert not report(0.85, steps=(0,))["is_settled"]


def test_a_point_reads_as_the_task_shows_quality() -> None:
    text = describe(report(0.5, 0.6, 0.8, 0.85), task_of(SHAPE))
    assert text.startswith("teacher 90.0%; subnets: smallest 85.0%")


def test_a_space_too_wide_for_its_training_is_warned_of() -> None:
    sampling = Sampling()
    warning = budget_warning(SPACE, sampling, 100)
    assert warning is not None
    assert "100 steps" in warning
    assert f"{SPACE.num_networks:,} networks" in warning
    assert budget_warning(SPACE, sampling, 100_000) is None
    assert budget_warning(SPACE, replace(sampling, num_random=1000), 100) is None


def test_the_warning_says_how_long_is_long_enough() -> None:
    warning = budget_warning(SPACE, Sampling(), 100)
    assert warning is not None
    factor = float(warning.split("Train ")[1].split(" times")[0])
    assert budget_warning(SPACE, Sampling(), round(100 * factor * 1.05)) is None
    assert budget_warning(SPACE, Sampling(), round(100 * factor * 0.9)) is not None
