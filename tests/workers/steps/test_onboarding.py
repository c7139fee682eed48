"""Devices learnt for their own sake, on a device that follows a known law."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictors.measuring import run_measuring_spec
from predictors.onboarding import OnboardingPlan
from predictors.spec import MeasuringSpec
from predictors.workload import Workload
from search.space import SubnetConfig
from service.database.models import Job
from service.devices.device_schemas import OnboardingSpec
from service.devices.predictor_store import list_predictors
from service.jobs import jobs
from service.steps.step_types import NewStep
from tests.predictors.shapes import TINY
from tests.workers.steps.conftest import OpenWorkshop, submitted
from tests.workers.steps.in_process import Workshop
from workers.steps.onboard import MAX_MEASURING_TRIES


class LawfulDevice:
    """Answers with the times that a law gives, in the form that the real measuring gives them.

    Attributes:
        noise: deviation of a network's time from the law.
        slower: factor on every time.
        slower_small: factor on the times of the small anchor alone.
    """

    def __init__(self, form: dict[str, Any]) -> None:
        self.noise = 0.0
        self.slower = 1.0
        self.slower_small = 1.0
        self.is_noisy = False
        self.specs: list[MeasuringSpec] = []
        self._form = form
        self._rng = random.Random(0)

    def __call__(self, spec: MeasuringSpec) -> dict[str, Any]:
        self.specs.append(spec)
        like = self._form["measurements"][0]
        anchors = [self._answer(like, n.key, n.subnet, spec, 0.0) for n in spec.anchors]
        anchors[-1] = self._scaled(anchors[-1], self.slower_small)
        networks = [self._answer(like, n.key, n.subnet, spec, self.noise) for n in spec.networks]
        session = {**self._form["session"], "noisy": self.is_noisy}
        return {**self._form, "session": session, "anchors": anchors, "measurements": networks}

    def _answer(
        self,
        like: dict[str, Any],
        key: str,
        subnet: SubnetConfig | None,
        spec: MeasuringSpec,
        noise: float,
    ) -> dict[str, Any]:
        assert subnet is not None
        speed = 0.6 if subnet.precision == "int8" else 1.0
        tokens = spec.workload.num_tokens
        layers = zip(subnet.num_heads, subnet.ffn_dim, strict=True)
        law = 0.1 + speed * tokens * sum(0.01 + 0.02 * h + 0.001 * f for h, f in layers)
        ms = self.slower * law * float(np.exp(noise * self._rng.gauss(0, 1)))
        rounds = [[ms] * len(times) for times in like["rounds_ms"]]
        return {
            **like,
            "key": key,
            "subnet": subnet.to_dict(),
            "rounds_ms": rounds,
            "factors": [1.0] * len(rounds),
        }

    def _scaled(self, answer: dict[str, Any], factor: float) -> dict[str, Any]:
        rounds = [[ms * factor for ms in times] for times in answer["rounds_ms"]]
        return {**answer, "rounds_ms": rounds}


@pytest.fixture(scope="module")
def form() -> dict[str, Any]:
    """What an answer of the real measuring looks like."""
    plan = OnboardingPlan(training=(SubnetConfig.full(TINY),), holdout=())
    spec = plan.to_spec(TINY, Workload(seq_len=16), rounds=3, repeats=1, seed=0)
    return run_measuring_spec(spec, extra_rounds=0).to_dict()


@pytest.fixture
def device(form: dict[str, Any]) -> LawfulDevice:
    return LawfulDevice(form)


@pytest.fixture
def workshop(open_workshop: OpenWorkshop, device: LawfulDevice) -> Iterator[Workshop]:
    with open_workshop(device) as workshop:
        yield workshop


def onboard(workshop: Workshop, **parts: Any) -> Job:
    """To its end."""
    spec = OnboardingSpec(
        **{
            "device": workshop.device_id,
            "shape": TINY.to_dict(),
            "workload": {"seq_len": 16},
            "max_measurements": 20,
            "num_holdout": 4,
            "rounds": 3,
            "repeats": 1,
            **parts,
        }
    )
    with workshop.database.write() as session:
        job = jobs.create_job(
            session,
            spec.model_dump(mode="json"),
            name="",
            kind="onboarding",
            first=NewStep(kind="onboarding"),
        )
    return workshop.run(job.id)


def result_of(job: Job) -> dict[str, Any]:
    assert job.state == "succeeded", job.reason_message
    assert job.result is not None
    return job.result


def test_a_device_that_is_easily_learnt_takes_one_session(
    workshop: Workshop, device: LawfulDevice
) -> None:
    result = result_of(onboard(workshop))
    assert len(device.specs) == 1
    assert set(result["predictors"]) == {"fp32", "int8"}
    assert result["is_exact"]
    assert result["half_width"] <= 0.05
    assert result["fit_report"]["mape"] < 0.03
    assert result["num_measured"] == len(device.specs[0].networks)


def test_an_uncertain_device_is_measured_near_the_budget_until_the_allowance_ends(
    workshop: Workshop, device: LawfulDevice
) -> None:
    device.noise = 0.1
    budget_ms = 4.0
    result = result_of(onboard(workshop, max_measurements=30, budgets_ms=[budget_ms]))
    assert not result["is_exact"]
    assert result["half_width"] > 0.05
    assert len(device.specs) > 1
    asked = [n.subnet for spec in device.specs for n in spec.networks]
    assert len(set(asked)) == len(asked)
    per_precision = [sum(s.precision == p for s in asked if s) for p in ("fp32", "int8")]
    assert max(per_precision) <= 30 + 4  # held-out networks come on top
    first, later = device.specs[0], device.specs[1:]
    assert all(len(spec.networks) <= 8 for spec in later)
    assert len(first.networks) > 8


def test_what_an_earlier_onboarding_measured_joins_the_next(workshop: Workshop) -> None:
    first = result_of(onboard(workshop))
    second = result_of(onboard(workshop, seed=1))
    assert second["fit_report"]["num_measurements"] > first["fit_report"]["num_measurements"]
    with workshop.database.read() as session:
        versions = sorted(p.version for p in list_predictors(session, workshop.device_id))
    assert versions == [1, 1, 2, 2]


def test_a_noisy_device_is_measured_again_and_then_taken_as_it_is(
    workshop: Workshop, device: LawfulDevice
) -> None:
    device.is_noisy = True
    job = onboard(workshop)
    assert result_of(job)
    assert len(device.specs) == MAX_MEASURING_TRIES
    assert [e.kind for e in workshop.events(job.id) if e.level == "warning"] == ["noisy"]


def test_a_check_finds_an_unchanged_device_unchanged(
    workshop: Workshop, device: LawfulDevice
) -> None:
    result_of(onboard(workshop))
    result = result_of(onboard(workshop, mode="check"))
    assert result["drift"]["kind"] == "none"
    assert result["predictors"] == {}
    assert len(device.specs[-1].networks) <= 3


def test_a_device_slower_as_a_whole_gets_an_offset_without_new_measurements(
    workshop: Workshop, device: LawfulDevice
) -> None:
    before = result_of(onboard(workshop))
    device.slower = 1.2
    result = result_of(onboard(workshop, mode="check"))
    assert result["drift"]["kind"] == "scale"
    assert result["drift"]["scale"] == pytest.approx(1.2, rel=1e-3)
    assert len(device.specs) == 2
    assert set(result["predictors"].values()).isdisjoint(before["predictors"].values())


def test_a_device_that_changed_in_shape_is_measured_anew(
    workshop: Workshop, device: LawfulDevice
) -> None:
    result_of(onboard(workshop))
    device.slower_small = 1.3
    job = onboard(workshop, mode="check")
    result = result_of(job)
    assert result["drift"]["kind"] == "shape"
    assert set(result["predictors"]) == {"fp32", "int8"}
    assert len(device.specs) >= 3
    assert len(device.specs[2].networks) > 3


def test_a_check_of_a_device_that_nobody_learnt_learns_it(workshop: Workshop) -> None:
    assert set(result_of(onboard(workshop, mode="check"))["predictors"]) == {"fp32", "int8"}


def test_a_job_trains_at_once_where_a_fresh_predictor_knows_the_device(
    workshop: Workshop, device: LawfulDevice, files: dict[str, list[Path]]
) -> None:
    measuring = {"num_networks": 24, "num_holdout": 4, "rounds": 3, "repeats": 1}
    spec = submitted(workshop, files, measuring=measuring)
    steps = [workshop.run_until(workshop.submit(spec), "teacher") for _ in range(2)]
    assert len(device.specs) == 1
    first, second = (step.input for step in steps)
    assert second["profiles"][0]["fit_report"] == first["profiles"][0]["fit_report"]
    assert [t["budget_ms"] for t in second["targets"]] == pytest.approx(
        [t["budget_ms"] for t in first["targets"]]
    )
    again = submitted(workshop, files, measuring=measuring | {"max_age_hours": 0})
    workshop.run_until(workshop.submit(again), "teacher")
    assert len(device.specs) == 2
