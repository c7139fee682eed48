"""The whole path on real, tiny networks: choose, build, measure, fit, predict."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from predictors.measuring import groups_by_size, run_measuring_spec, write_network
from predictors.onboarding import choose_networks
from predictors.predictor import rows_of
from predictors.protocol import MeasuringAborted
from predictors.report import fit_and_report
from predictors.spec import MeasuringResult, MeasuringSpec, NetworkSpec
from predictors.workload import Workload
from search.space import SubnetConfig
from tests.predictors.shapes import TINY, TINY_SPACE

SHORT = Workload(seq_len=8)


def test_choose_measure_fit_and_predict() -> None:
    plan = choose_networks(TINY_SPACE, TINY, SHORT, num_networks=12, num_holdout=4)
    spec = plan.to_spec(TINY, SHORT, rounds=2, repeats=2, seed=0)
    answer = json.loads(json.dumps(run_measuring_spec(spec).to_dict()))
    result = MeasuringResult.from_dict(answer)
    predictor, report = fit_and_report(
        rows_of(result, "n"),
        rows_of(result, "h"),
        shape=TINY,
        workload=SHORT,
        noise_floor=result.session.noise_floor,
    )
    assert report.num_measurements == 12
    assert report.num_holdout == 4
    estimate = predictor.predict([TINY_SPACE.largest, TINY_SPACE.smallest])
    assert (estimate.mean_ms > 0).all()
    assert np.isfinite(estimate.upper_ms).all()
    assert predictor.reference_ms == result.reference.median_ms
    assert answer["environment"]["device"]["runtimes"]
    assert set(answer["measurements"][0]) >= {"key", "subnet", "median_ms", "p95_ms", "rounds_ms"}


def test_a_finished_file_is_fetched_and_timed_beside_the_reference(tmp_path: Path) -> None:
    subnet = SubnetConfig(layers=(0, 2), num_heads=(1, 2), ffn_dim=(16, 32), precision="int8")
    file = write_network(NetworkSpec(key="file", subnet=subnet), TINY, tmp_path, None)
    spec = MeasuringSpec(
        workload=SHORT,
        shape=TINY,
        reference=NetworkSpec(key="reference", subnet=SubnetConfig.full(TINY)),
        networks=(
            NetworkSpec(key="t0", blob="ab" * 32, subnet=subnet),
            NetworkSpec(key="t1", blob="cd" * 32),
        ),
        rounds=2,
        repeats=2,
    )
    fetched: list[str] = []

    def fetch(sha256: str, path: Path) -> None:
        fetched.append(sha256)
        shutil.copy(file, path)

    result = run_measuring_spec(spec, fetch_blob=fetch, scratch=tmp_path)
    assert fetched == ["ab" * 32, "cd" * 32]
    assert result.measurement("t0").subnet == subnet
    assert result.measurement("t1").subnet is None
    assert result.measurement("reference").median_ms > 0
    assert [row.subnet for row in rows_of(result, "t")] == [subnet]
    assert list(tmp_path.iterdir()) == [file]  # nothing is left behind


def test_asked_to_stop_it_leaves_nothing_behind(tmp_path: Path) -> None:
    plan = choose_networks(TINY_SPACE, TINY, SHORT, num_networks=4, num_holdout=1)
    spec = plan.to_spec(TINY, SHORT, rounds=1, repeats=1, seed=0)
    with pytest.raises(MeasuringAborted):
        run_measuring_spec(spec, scratch=tmp_path, should_abort=lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_networks_are_loaded_in_groups_that_fit_into_memory() -> None:
    sizes = {"a": 4, "b": 4, "c": 9, "d": 30, "e": 2}
    assert groups_by_size(sizes, 10) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert groups_by_size(sizes, 1000) == [["a", "b", "c", "d", "e"]]


def test_an_agent_needs_neither_torch_nor_scipy() -> None:
    code = (
        "import sys, predictors.measuring, predictors.device;"
        "print([m for m in ('torch', 'scipy', 'optuna', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
