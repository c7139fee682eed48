"""A search that weighs energy, on a device whose counters are files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictors import measuring
from predictors.energy_predictor import EnergyPredictor
from predictors.measuring import run_measuring_spec
from predictors.probe import probe_device
from predictors.protocol import Runnable
from predictors.runtimes.base import Network, Runtime
from predictors.runtimes.registry import load_runtime
from predictors.spec import MeasuringSpec
from predictors.workload import Workload
from search.costs import flops
from search.errors import InvalidInput
from search.shape import ModelShape
from search.space import SubnetConfig
from service.database.models import Job
from service.devices.devices import register_device
from service.devices.predictor_store import list_predictors
from tests.predictors.powercap import Powercap
from tests.predictors.shapes import MINILM
from tests.predictors.test_predictor import fit, training_rows
from tests.workers.steps.conftest import OpenWorkshop, WholeJob, quietly, submitted
from tests.workers.steps.in_process import Workshop
from tests.workers.steps.test_onboarding import LawfulDevice
from workers.steps.energies import TOO_MUCH, Energies

SEARCH = {
    "population": 4,
    "generations": 2,
    "fidelity_rows": 40,
    "objectives": ["energy_mj"],
    "baselines": ["flops"],
}
# A budget that anything keeps: writing the counter takes as long as the networks do.
TARGETS = [{"budget_ms": 1000, "workload": {"seq_len": 16}}]


def true_mj(shape: ModelShape, subnet: SubnetConfig) -> float:
    """By the work, half of it in int8."""
    speed = 0.5 if subnet.precision == "int8" else 1.0
    return 0.2 + speed * flops(shape, subnet, seq_len=16) / 1e6


class Metered:
    """A network whose every run is counted by its energy."""

    def __init__(self, network: Runnable, powercap: Powercap, energy_mj: float) -> None:
        self._network, self._powercap, self._energy_mj = network, powercap, energy_mj

    def run(self) -> None:
        self._network.run()
        self._powercap.spend(self._energy_mj)


class MeteredRuntime:
    def __init__(self, runtime: Runtime, powercap: Powercap) -> None:
        self.name, self.version = runtime.name, runtime.version
        self.providers, self.precisions = runtime.providers, runtime.precisions
        self._runtime, self._powercap = runtime, powercap

    def load(self, network: Network, workload: Workload) -> Runnable:
        assert network.subnet is not None
        energy_mj = true_mj(network.shape, network.subnet)
        return Metered(self._runtime.load(network, workload), self._powercap, energy_mj)


def register_with(powercap: Powercap, workshop: Workshop) -> None:
    with workshop.database.write() as session:
        register_device(session, "this-cpu", probe_device(powercap.folder).to_dict())


class MeteredDevice:
    """This machine, beside a folder of counters."""

    def __init__(self, workshop: Workshop, powercap: Powercap) -> None:
        self._workshop, self._powercap = workshop, powercap

    def __call__(self, spec: MeasuringSpec) -> dict[str, Any]:
        def fetch(sha256: str, path: Path) -> None:
            shutil.copyfile(self._workshop.store.path(sha256), path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                measuring,
                "load_runtime",
                lambda name: MeteredRuntime(load_runtime(name), self._powercap),
            )
            return run_measuring_spec(
                spec, fetch_blob=fetch, powercap=self._powercap.folder
            ).to_dict()


class LawfulMeter(LawfulDevice):
    """Times and energies by a law, without running anything."""

    def __init__(self, form: dict[str, Any], powercap: Powercap) -> None:
        super().__init__(form)
        self.powercap = powercap
        self.has_energy = True

    def __call__(self, spec: MeasuringSpec) -> dict[str, Any]:
        answer = super().__call__(spec)
        for found in (*answer["anchors"], *answer["measurements"]):
            energies_mj = [8 * times[0] for times in found["rounds_ms"]]
            found["rounds_mj"] = energies_mj if self.has_energy else None
        return answer


@pytest.fixture
def lawful(whole_job: WholeJob, tmp_path: Path) -> LawfulMeter:
    """Answers in the form of the whole job's device."""
    (form, *_) = whole_job.device.results.values()
    return LawfulMeter(form, Powercap(tmp_path / "powercap"))


@dataclass(frozen=True, slots=True)
class Weighed:
    """A finished job that weighed energy."""

    workshop: Workshop
    job: Job
    report: dict[str, Any]
    shape: ModelShape


@pytest.fixture(scope="module")
def weighed(whole_job: WholeJob, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weighed]:
    """A search of the whole job's supernet."""
    workshop = whole_job.workshop
    powercap = Powercap(tmp_path_factory.mktemp("sys") / "powercap")
    workshop.measure = quietly(MeteredDevice(workshop, powercap))
    register_with(powercap, workshop)
    try:
        spec = {
            **whole_job.spec,
            "targets": TARGETS,
            "search": SEARCH,
            "supernet_of": whole_job.job.id,
        }
        job = workshop.run(workshop.submit(spec))
        assert job.state == "succeeded", job.reason_message
        (report,) = [a for a in workshop.artifacts(job.id) if a.name == "report.json"]
        yield Weighed(
            workshop,
            job,
            json.loads(workshop.store.path(report.sha256).read_text()),
            ModelShape.from_dict(whole_job.step("search").input["shape"]),
        )
    finally:
        workshop.measure = whole_job.device
        with workshop.database.write() as session:
            register_device(session, "this-cpu", probe_device().to_dict())


def test_every_evaluation_has_the_energy_that_its_network_is_predicted_to_spend(
    weighed: Weighed,
) -> None:
    evaluations = weighed.workshop.evaluations(weighed.job.id)
    assert {e.source for e in evaluations} == {"search", "flops", "earlier"}
    for evaluation in evaluations:
        subnet = SubnetConfig.from_dict(evaluation.subnet)
        expected_mj = true_mj(weighed.shape, subnet)
        assert evaluation.metrics["energy_mj"] == pytest.approx(expected_mj, rel=0.1)
        assert evaluation.state is not None
        if evaluation.source == "search":
            _, energy_mj, _ = evaluation.state["values"]
            assert energy_mj == evaluation.metrics["energy_mj"]


def test_the_report_has_the_energy_that_exported_files_were_measured_to_spend(
    weighed: Weighed,
) -> None:
    (target,) = weighed.report["targets"]
    subnet = SubnetConfig.from_dict(target["subnet"])
    assert target["energy_mj"] == pytest.approx(true_mj(weighed.shape, subnet), rel=0.01)
    full = SubnetConfig.full(weighed.shape)
    unsearched_mj = weighed.report["baseline"]["energy_mj"]
    assert unsearched_mj == pytest.approx(true_mj(weighed.shape, full), rel=0.01)


def test_predictors_of_energy_are_kept_beside_those_of_latency(weighed: Weighed) -> None:
    with weighed.workshop.database.read() as session:
        stored = list_predictors(session, weighed.workshop.device_id, latest=True)
    own = [p for p in stored if p.job_id == weighed.job.id]
    quantities = sorted(p.payload["key"].get("quantity", "latency") for p in own)
    assert quantities == ["energy", "energy", "latency", "latency"]
    assert len({p.predictor_key for p in own}) == 4
    (told,) = [e for e in weighed.workshop.events(weighed.job.id) if "energy" in e.message]
    assert told.data["energy_fit_report"]["mape"] < 0.1


def test_a_network_that_the_first_target_cannot_run_counts_as_far_too_much() -> None:
    rows = [row for row in training_rows() if row.subnet.precision == "fp32"]
    predictor = EnergyPredictor(fit(rows))
    full = SubnetConfig.full(MINILM)
    energies = Energies({1: predictor})
    found_mj = energies.mean_mj([full, full.with_precision("int8"), full], np.array([1, 1, 0]))
    assert found_mj[0] == predictor.predict_mj([full])[0]
    assert list(found_mj[1:]) == [TOO_MUCH * predictor.reference_mj] * 2


def test_what_another_job_does_not_weigh_it_does_not_record(whole_job: WholeJob) -> None:
    for evaluation in whole_job.workshop.evaluations(whole_job.job.id):
        assert "energy_mj" not in evaluation.metrics
    with whole_job.workshop.database.read() as session:
        stored = list_predictors(session, whole_job.workshop.device_id)
    own = [p for p in stored if p.job_id == whole_job.job.id]
    assert not any(p.predictor_key.endswith("/energy") for p in own)


def test_a_device_without_counters_fails_the_job_before_anything_is_measured(
    open_workshop: OpenWorkshop, files: dict[str, list[Path]]
) -> None:
    with open_workshop(_never) as workshop:
        spec = submitted(workshop, files, targets=TARGETS, search=SEARCH)
        job = workshop.run(workshop.submit(spec))
        assert job.state == "failed"
        assert job.reason_code == InvalidInput.code
        assert "search.objectives" in job.reason_message


def test_counters_that_fail_while_measuring_fail_the_job_before_anything_is_trained(
    open_workshop: OpenWorkshop, files: dict[str, list[Path]], lawful: LawfulMeter
) -> None:
    lawful.has_energy = False
    with open_workshop(lawful) as workshop:
        register_with(lawful.powercap, workshop)
        spec = submitted(workshop, files, targets=TARGETS, search=SEARCH)
        job = workshop.run(workshop.submit(spec))
        assert job.state == "failed"
        assert "search.objectives: the device measured no energy" in job.reason_message
        assert {step.kind for step in workshop.steps(job.id)} == {"prepare", "onboard"}


def test_a_fresh_predictor_of_latency_alone_is_not_enough(
    open_workshop: OpenWorkshop, files: dict[str, list[Path]], lawful: LawfulMeter
) -> None:
    with open_workshop(lawful) as workshop:
        register_with(lawful.powercap, workshop)
        measuring = {"num_networks": 24, "num_holdout": 4, "rounds": 3, "repeats": 1}
        plain = submitted(workshop, files, targets=TARGETS, measuring=measuring)
        weighing = {**plain, "search": SEARCH}
        counts = []
        for spec in (plain, plain, weighing, weighing):
            step = workshop.run_until(workshop.submit(spec), "teacher")
            counts.append(len(lawful.specs))
        assert counts == [1, 1, 2, 2]
        assert step.input["profiles"][0]["energy_predictor"] is not None


def _never(spec: MeasuringSpec) -> dict[str, Any]:
    raise AssertionError(f"nothing is to be measured: {spec.workload}")
