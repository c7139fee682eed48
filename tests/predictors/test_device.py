"""What a machine says it is, and what follows from it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from predictors.device import GIBIBYTE, Device, RuntimeInfo
from predictors.probe import available_bytes, probe_device, probe_environment, probe_load
from predictors.workload import Workload
from search.errors import InvalidInput
from tests.predictors.powercap import Powercap

DEVICE = Device(
    cpu_model="Cortex-A76",
    machine="aarch64",
    num_cores=4,
    memory_bytes=8 * GIBIBYTE,
    os="Linux 6.6",
    isa=("asimd",),
    runtimes={
        "onnxruntime": RuntimeInfo(version="1.32.0", precisions=("fp32", "int8")),
        "torch": RuntimeInfo(version="2.13.0", providers=("cpu", "cuda")),
    },
    missing_runtimes={"openvino": "openvino is not installed here (aarch64)"},
)
OLD_AGENTS_REPORT = {
    "cpu_model": "AMD EPYC",
    "machine": "x86_64",
    "num_cores": 2,
    "memory_bytes": 25_274_793_984,
    "os": "Linux 6.18",
    "isa": ["avx2"],
    "runtimes": {"onnxruntime": "1.32.0"},
}


def test_the_identity_is_the_same_at_every_probe() -> None:
    first, second = probe_device(), probe_device()
    assert first == second
    assert first.fingerprint == second.fingerprint
    assert first.num_cores >= 1
    assert first.memory_bytes > 0
    assert set(first.runtimes) | set(first.missing_runtimes) == {
        "onnxruntime",
        "openvino",
        "torch",
    }
    assert "cpu" in first.runtimes["onnxruntime"].providers


def test_identity_and_environment_survive_json() -> None:
    device = probe_device()
    assert Device.from_dict(json.loads(json.dumps(device.to_dict()))) == device
    json.dumps(probe_environment(), allow_nan=False)
    assert set(probe_load()) == {"load", "steal_s", "frequency_mhz"}
    assert 0 < available_bytes() <= device.memory_bytes


def test_another_runtime_is_the_same_hardware() -> None:
    changed = replace(DEVICE, runtimes={}, missing_runtimes={"onnxruntime": "gone"})
    assert changed.fingerprint == DEVICE.fingerprint


def test_counters_of_energy_do_not_make_it_another_machine(tmp_path: Path) -> None:
    changed = replace(DEVICE, energy_source="rapl")
    assert changed.fingerprint == DEVICE.fingerprint
    probed = probe_device(Powercap(tmp_path / "powercap").folder)
    assert probed.energy_source == "rapl"
    assert Device.from_dict(json.loads(json.dumps(probed.to_dict()))) == probed
    without = probe_device(tmp_path / "absent")
    assert without.energy_source is None
    assert without.fingerprint == probed.fingerprint


def test_a_fingerprint_is_what_it_was_before_devices_told_of_energy() -> None:
    assert DEVICE.fingerprint == "141fdee410937df2"


@pytest.mark.parametrize(
    "change",
    [
        {"cpu_model": "Cortex-A55"},
        {"num_cores": 2},
        {"memory_bytes": 4 * GIBIBYTE},
        {"os": "Linux 6.7"},
        {"isa": ("asimd", "i8mm")},
        {"gpus": ("NVIDIA H200, 570.10",)},
        {"affinity": (0, 1)},
        {"governor": "powersave"},
        {"max_frequency_mhz": 2400},
        {"cpu_quota_cores": 1.5},
    ],
)
def test_whatever_changes_a_latency_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert replace(DEVICE, **change).fingerprint != DEVICE.fingerprint


def test_memory_that_a_kernel_reports_a_little_differently_is_the_same() -> None:
    changed = replace(DEVICE, memory_bytes=DEVICE.memory_bytes - 2**20)
    assert changed.fingerprint == DEVICE.fingerprint


def test_a_report_of_an_older_or_newer_agent_is_understood() -> None:
    device = Device.from_dict(OLD_AGENTS_REPORT)
    assert device.runtime("onnxruntime").precisions == ("fp32", "int8")
    assert device.gpus == ()
    assert device.energy_source is None
    assert Device.from_dict(OLD_AGENTS_REPORT | {"numa_nodes": 2}) == device
    assert Device.from_dict(OLD_AGENTS_REPORT | {"governor": None}) == device


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"num_cores": "2"}, "device.num_cores"),
        ({"num_cores": True}, "device.num_cores"),
        ({"num_cores": 0}, "device.num_cores"),
        ({"isa": "avx2"}, "device.isa"),
        ({"isa": [1]}, "device.isa[0]"),
        ({"affinity": [0.5]}, "device.affinity[0]"),
        ({"os": None}, "device.os"),
        ({"cpu_quota_cores": float("nan")}, "device.cpu_quota_cores"),
        (
            {"runtimes": {"onnxruntime": {"providers": ["cpu"]}}},
            "device.runtimes.onnxruntime.version",
        ),
        ({"runtimes": ["onnxruntime"]}, "device.runtimes"),
        ({"missing_runtimes": {"torch": 1}}, "device.missing_runtimes.torch"),
    ],
)
def test_a_report_of_wrong_types_names_the_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Device.from_dict(OLD_AGENTS_REPORT | change)
    assert caught.value.field == field


def test_what_a_device_lacks_is_refused_with_its_own_reason() -> None:
    DEVICE.require(Workload(), ("fp32", "int8"))
    with pytest.raises(InvalidInput, match="not installed here") as caught:
        DEVICE.require(Workload(runtime="openvino"))
    assert caught.value.field == "workload.runtime"
    with pytest.raises(InvalidInput, match="no 'cuda'") as caught:
        DEVICE.require(Workload(provider="cuda"))
    assert caught.value.field == "workload.provider"
    with pytest.raises(InvalidInput, match="does not do int8") as caught:
        DEVICE.require(Workload(runtime="torch"), ("fp32", "int8"))
    assert caught.value.field == "precision"


def test_the_nouns_load_no_runtime() -> None:
    code = (
        "import sys, predictors.device, predictors.spec, predictors.workload;"
        "names = ('onnx', 'onnxruntime', 'openvino', 'torch', 'psutil', 'scipy', 'sklearn');"
        "print([m for m in names if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
