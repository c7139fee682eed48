"""What this machine says it is."""

from __future__ import annotations

import json

from predictors.device import Device, probe_device, probe_environment


def test_the_identity_is_the_same_at_every_probe() -> None:
    first, second = probe_device(), probe_device()
    assert first == second
    assert first.fingerprint == second.fingerprint
    assert first.num_cores >= 1
    assert first.memory_bytes > 0
    assert "onnxruntime" in first.runtimes


def test_another_runtime_version_is_another_device() -> None:
    device = probe_device()
    data = device.to_dict() | {"runtimes": {"onnxruntime": "0.0.1"}}
    assert Device.from_dict(data).fingerprint != device.fingerprint


def test_identity_and_environment_survive_json() -> None:
    device = probe_device()
    assert Device.from_dict(json.loads(json.dumps(device.to_dict()))) == device
    json.dumps(probe_environment(), allow_nan=False)
