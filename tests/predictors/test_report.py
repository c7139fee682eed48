"""The report: errors on held-out networks, beside those of trivial predictors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from predictors.onboarding import choose_networks
from predictors.report import fit_and_report, report_fit
from tests.predictors.shapes import KEYS, MACS_PER_BYTE, MINILM, MINILM_SPACE, WORKLOAD
from tests.predictors.test_predictor import fit, row, training_rows


def test_a_report_beats_the_trivial_predictors_where_widths_matter() -> None:
    plan = choose_networks(MINILM_SPACE, MINILM, WORKLOAD, num_networks=32, num_holdout=12)
    rng = np.random.default_rng(0)
    training, holdout = (
        [row(subnet, 0.005 * rng.standard_normal()) for subnet in subnets]
        for subnets in (plan.training, plan.holdout)
    )
    predictor, report = fit_and_report(
        training,
        holdout,
        keys=KEYS,
        shape=MINILM,
        workload=WORKLOAD,
        macs_per_byte=MACS_PER_BYTE,
        noise_floor=0.004,
    )
    assert report.num_measurements == 32
    assert report.num_holdout == 12
    assert report.mape < 0.015 < report.depth_only_mape
    assert report.mape < report.flops_only_mape
    assert report.within_5 == 1.0
    assert report.spearman is not None
    assert report.spearman > 0.99
    assert report.spearman_equal_depth is not None
    assert report.spearman_equal_depth > 0.9
    assert report.noise_floor == 0.004
    assert {p: part["num_holdout"] for p, part in report.by_precision.items()} == {
        "fp32": 6,
        "int8": 6,
    }
    assert len(predictor.rows) == 44  # the predictor that is handed out knows the held-out too
    json.dumps(report.to_dict(), allow_nan=False)


def test_nothing_held_out_is_an_error() -> None:
    with pytest.raises(ValueError, match="held-out"):
        report_fit(fit(training_rows()), [], noise_floor=0.0)
