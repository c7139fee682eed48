from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from predictors.device import Device, RuntimeInfo
from search.errors import InvalidInput
from search.shape import ModelShape
from service.devices.profiles import profiles_of, space_of
from service.jobs.job_spec import JobSpec, SpaceSpec
from tests.search.small import SHAPE

BOTH = {
    "onnxruntime": RuntimeInfo(version="1", precisions=("fp32", "int8")),
    "openvino": RuntimeInfo(version="1"),
    "torch": RuntimeInfo(version="1"),
}


def device(name: str) -> Device:
    runtimes = BOTH if name == "server" else {"onnxruntime": BOTH["onnxruntime"]}
    return Device(
        cpu_model=name,
        machine="x86_64",
        num_cores=2,
        memory_bytes=2**30,
        os="linux",
        energy_source="rapl" if name == "server" else None,
        runtimes=runtimes,
    )


def spec(*targets: dict[str, Any]) -> JobSpec:
    uploads = {"model": {"upload": "up_m"}, "data": {"upload": "up_d"}}
    named = [{"budget_ms": 1, "device": "server", **target} for target in targets]
    return JobSpec.model_validate({**uploads, "targets": named})


def test_targets_of_one_device_and_workload_share_a_profile() -> None:
    profiles = profiles_of(spec({}, {"budget_ms": 2}, {"workload": {"seq_len": 8}}), SHAPE, device)
    assert profiles.of_target == ((0,), (0,), (1,))
    assert [p.workload.seq_len for p in profiles.all] == [SHAPE.max_seq_len, 8]


def test_an_open_runtime_is_every_runtime_that_runs_files() -> None:
    profiles = profiles_of(
        spec({"workload": {"runtime": "auto"}}, {"device": "board"}), SHAPE, device
    )
    assert profiles.of_target == ((0, 1), (2,))
    assert [p.workload.runtime for p in profiles.all] == ["onnxruntime", "openvino", "onnxruntime"]
    assert profiles.precisions == ("fp32", "int8")


@pytest.mark.parametrize(
    ("target", "field", "reason"),
    [
        ({"device": "board", "workload": {"runtime": "openvino"}}, "runtime", "has no openvino"),
        ({"workload": {"runtime": "torch"}}, "runtime", "choose onnxruntime or openvino"),
        ({"workload": {"runtime": "auto", "provider": "cuda"}}, "runtime", "no runtime of the"),
        ({"workload": {"provider": "cuda"}}, "provider", "has no 'cuda'"),
    ],
)
def test_what_a_device_lacks_is_named_with_its_target(
    target: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        profiles_of(spec({}, target), SHAPE, device)
    assert caught.value.field == f"targets[1].workload.{field}"


def weighing_energy(*targets: dict[str, Any]) -> JobSpec:
    data = spec(*targets).model_dump() | {"search": {"objectives": ["energy_mj"]}}
    return JobSpec.model_validate(data)


def test_energy_is_weighed_where_the_first_targets_device_counts_it() -> None:
    profiles = profiles_of(weighing_energy({}, {"device": "board"}), SHAPE, device)
    assert len(profiles.all) == 2


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({"device": "board"}, "first target, 'board', whose agent can read no energy counters"),
        ({"workload": {"provider": "cuda"}}, "tell nothing of 'cuda'"),
    ],
)
def test_energy_that_no_counter_tells_is_refused(target: dict[str, Any], reason: str) -> None:
    def with_gpu(name: str) -> Device:
        gpu = RuntimeInfo(version="1", providers=("cpu", "cuda"))
        return replace(device(name), runtimes={"onnxruntime": gpu})

    with pytest.raises(InvalidInput, match=reason) as caught:
        profiles_of(weighing_energy(target, {}), SHAPE, with_gpu)
    assert caught.value.field == "search.objectives"
    profiles_of(spec(target, {}), SHAPE, with_gpu)


@pytest.mark.parametrize("preset", ["small", "medium", "wide"])
def test_a_space_has_the_precisions_that_some_runtime_does(preset: str) -> None:
    wanted = SpaceSpec.model_validate({"preset": preset})
    assert space_of(wanted, SHAPE, ["fp32", "int8"]).precision == ("fp32", "int8")
    alone = space_of(wanted, SHAPE, ["fp32"])
    assert (alone.precision, alone.precision_groups) == (("fp32",), 1)


def test_choices_of_ones_own_replace_those_of_the_preset() -> None:
    wanted = SpaceSpec.model_validate({"preset": "wide", "embed_dim": [16], "num_layers": [2]})
    space = space_of(wanted, ModelShape.from_dict(SHAPE.to_dict()), ["fp32", "int8"])
    assert (space.embed_dim, space.num_layers, space.precision_groups) == ((16,), (2,), 2)
