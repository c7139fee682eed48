"""A session on real, tiny networks, from the request to the answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from predictors.measuring import run_measuring_spec
from predictors.protocol import MeasuringAborted
from predictors.runtimes.base import LoadingFailed, Network, RuntimeMissing
from predictors.runtimes.onnx_file import onnx_file
from predictors.runtimes.registry import find_runtimes
from predictors.spec import MeasuringResult, MeasuringSpec, NetworkSpec
from predictors.workload import Workload
from search.errors import InvalidInput
from search.space import SubnetConfig
from tests.predictors.shapes import TINY

SHORT = Workload(seq_len=8)
SUBNET = SubnetConfig(layers=(0, 2), num_heads=(1, 2), ffn_dim=(16, 32))


def spec(*networks: NetworkSpec, workload: Workload = SHORT) -> MeasuringSpec:
    return MeasuringSpec(
        workload=workload,
        shape=TINY,
        reference=NetworkSpec(key="reference", subnet=SubnetConfig.full(TINY)),
        networks=networks or (NetworkSpec(key="n0", subnet=SUBNET),),
        rounds=2,
        repeats=2,
    )


@pytest.mark.parametrize("runtime", find_runtimes().available)
def test_an_answer_holds_what_was_asked_for(runtime: str, tmp_path: Path) -> None:
    asked = spec(workload=replace(SHORT, runtime=runtime))
    answer = json.loads(json.dumps(run_measuring_spec(asked, scratch=tmp_path).to_dict()))
    result = MeasuringResult.from_dict(answer, asked)
    assert result.measurement("n0").subnet == SUBNET
    assert [anchor.key for anchor in result.anchors] == [
        "reference",
        "middle-anchor",
        "small-anchor",
    ]
    assert runtime in answer["environment"]["device"]["runtimes"]
    assert answer["environment"]["before"]["load_average"]
    assert set(result.peaks["flops_per_s"]) == set(asked.workload.precisions)
    assert set(answer["measurements"][0]) >= {
        "median_ms",
        "median_interval_ms",
        "p95_ms",
        "p95_interval_ms",
        "rounds_ms",
        "discarded_ms",
    }
    assert len(answer["session"]["anchor_offsets"]) == len(answer["session"]["blocks"])
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_a_finished_file_is_fetched_and_timed_beside_the_reference(tmp_path: Path) -> None:
    int8 = SUBNET.with_precision("int8")
    written = onnx_file(Network(key="w", shape=TINY, subnet=int8, folder=tmp_path))
    fetched: list[str] = []

    def fetch(sha256: str, path: Path) -> None:
        fetched.append(sha256)
        shutil.copy(written, path)

    asked = spec(
        NetworkSpec(key="t0", blob="ab" * 32, subnet=int8), NetworkSpec(key="t1", blob="cd" * 32)
    )
    result = run_measuring_spec(asked, fetch_blob=fetch, scratch=tmp_path)
    assert fetched == ["ab" * 32, "cd" * 32]
    assert result.measurement("t0").subnet == int8
    assert result.measurement("t1").subnet is None
    assert result.reference.median_ms > 0
    assert list(tmp_path.iterdir()) == [written]


def test_a_file_that_cannot_be_had_or_run_is_named(tmp_path: Path) -> None:
    asked = spec(NetworkSpec(key="t0", blob="ab" * 32))
    with pytest.raises(InvalidInput, match=r"networks\.t0\.blob"):
        run_measuring_spec(asked, scratch=tmp_path)

    def fetch(_: str, path: Path) -> None:
        path.write_text("no network")

    with pytest.raises(LoadingFailed, match="t0"):
        run_measuring_spec(asked, fetch_blob=fetch, scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_provider_that_this_machine_lacks_is_refused(tmp_path: Path) -> None:
    (runtime,) = {"torch"} & set(find_runtimes().available)
    if "cuda" in find_runtimes().available[runtime].providers:
        pytest.skip("has CUDA")
    with pytest.raises(RuntimeMissing, match="cuda"):
        run_measuring_spec(
            spec(workload=replace(SHORT, runtime="torch", provider="cuda")), scratch=tmp_path
        )


def test_asked_to_stop_it_leaves_nothing_behind(tmp_path: Path) -> None:
    asked = 0

    def stop_after_a_while() -> bool:
        nonlocal asked
        asked += 1
        return asked > 20

    with pytest.raises(MeasuringAborted):
        run_measuring_spec(spec(), scratch=tmp_path, should_abort=stop_after_a_while)
    assert asked == 21
    assert list(tmp_path.iterdir()) == []


def test_an_agent_needs_neither_torch_nor_scipy() -> None:
    code = (
        "import sys, predictors.measuring, predictors.probe;"
        "print([m for m in ('torch', 'scipy', 'optuna', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
