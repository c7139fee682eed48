from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from search.model.transformer import Batch
from search.robustness.calibration import binned, measure_calibration
from tests.search import small
from tests.search.export.test_running import CASES, rows_for
from tests.search.families import SHAPES
from tests.search.robustness.probes import guesses, knows_not, probe


def error_of(confidence: list[float], is_right: list[int]) -> float:
    row = np.arange(len(confidence))
    return binned(np.array(confidence), np.array(is_right, dtype=float), row).error()


def test_the_error_is_that_which_a_hand_computes() -> None:
    # Bins of a fifteenth: 0.95 and 0.99 share the last one (accuracy 1/2, confidence 0.97), 0.62
    # is in the tenth (accuracy 1): 2/3 |0.5 - 0.97| + 1/3 |1 - 0.62|.
    assert error_of([0.95, 0.99, 0.62], [1, 0, 1]) == pytest.approx(2 / 3 * 0.47 + 1 / 3 * 0.38)


def test_it_is_zero_where_confidence_is_accuracy() -> None:
    assert error_of([0.75] * 4, [1, 1, 1, 0]) == pytest.approx(0)
    assert error_of([1.0] * 4, [1, 1, 1, 1]) == 0
    assert error_of([1.0] * 4, [0, 0, 0, 0]) == 1


def test_errors_of_two_bins_do_not_make_up_for_each_other() -> None:
    assert error_of([0.9] * 2 + [0.6] * 2, [0, 1, 1, 1]) == pytest.approx(0.4)


def test_bins_are_closed_above() -> None:
    # 0.2 is 3 / 15: of the third bin, with 0.19, and not of the fourth, with 0.21.
    table = binned(np.array([0.19, 0.2, 0.21]), np.ones(3), np.arange(3))
    assert table.counts.sum(0)[2:4].tolist() == [2, 1]


def test_a_network_is_judged_by_the_label_that_it_gives(tmp_path: Path) -> None:
    rows = probe(tmp_path).rows
    always_right = measure_calibration(knows_not, rows, seed=0)
    assert always_right.accuracy == 1
    assert always_right.mean_confidence == pytest.approx(0.9)
    assert always_right.calibration_error == pytest.approx(0.1)
    half_right = measure_calibration(guesses, rows, seed=0)
    assert half_right.calibration_error == pytest.approx(0.2)
    assert half_right.num_bins == 15
    assert json.loads(json.dumps(half_right.to_dict())) == half_right.to_dict()


def test_the_interval_holds_the_error_and_narrows_with_rows() -> None:
    def half_sure(batch: Batch) -> Tensor:
        return torch.tensor([[0.0, 0.1]]).expand(len(batch.inputs), 2)

    few, many = (measure_calibration(half_sure, small.task(n), seed=0) for n in (32, 512))
    for found in (few, many):
        assert 0 <= found.interval.lower <= found.calibration_error <= found.interval.upper
    widths = [found.interval.upper - found.interval.lower for found in (few, many)]
    assert widths[0] > 2 * widths[1]
    assert measure_calibration(half_sure, small.task(32), seed=0) == few


def test_answers_of_a_row_depend_on_each_other() -> None:
    confidence, is_right = np.full(400, 0.8), np.repeat([1.0, 0.0], 200)
    by_answer = binned(confidence, is_right, np.arange(400)).interval(0)
    by_row = binned(confidence, is_right, np.arange(400) // 50).interval(0)
    assert by_row.upper - by_row.lower > 2 * (by_answer.upper - by_answer.lower)


def test_every_tag_is_an_answer() -> None:
    def uniform(batch: Batch) -> Tensor:
        return torch.zeros(*batch.inputs.shape, SHAPES["bert"].num_labels)

    rows = rows_for("tags")
    assert CASES["tags"].answers_per_token
    found = measure_calibration(uniform, rows, seed=0)
    assert found.mean_confidence == pytest.approx(1 / 3)
    assert found.num_rows == 6
