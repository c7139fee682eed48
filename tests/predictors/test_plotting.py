"""The picture of a device, drawn from what the service stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from predictors.plotting import draw_device
from search.errors import InvalidInput
from tests.predictors.test_predictor import fit, training_rows

SESSIONS = [
    {
        "created_at": 1.8e9 + 3600 * hour,
        "workload_key": "encode/onnxruntime/cpu/b1/s64/t1",
        "anchors": [
            {"key": "reference", "median_ms": 15.0 + hour},
            {"key": "small-anchor", "median_ms": 1.5 + 0.1 * hour},
        ],
    }
    for hour in range(3)
]


def test_a_device_is_drawn_as_a_png(tmp_path: Path) -> None:
    payloads = [part.to_json() for part in fit(training_rows(0.02)).predictors.values()]
    path = tmp_path / "device.png"
    draw_device(path, name="this-cpu", predictors=payloads, sessions=SESSIONS)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_device_without_predictors_is_drawn_by_its_anchors_alone(tmp_path: Path) -> None:
    path = tmp_path / "device.png"
    draw_device(path, name="this-cpu", predictors=[], sessions=[])
    assert path.stat().st_size > 1000


def test_a_predictor_of_another_version_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    payload = fit(training_rows()).predictors["fp32"].to_json() | {"version": 1}
    path = tmp_path / "device.png"
    with pytest.raises(InvalidInput, match="version"):
        draw_device(path, name="this-cpu", predictors=[payload], sessions=SESSIONS)
    assert not path.exists()
