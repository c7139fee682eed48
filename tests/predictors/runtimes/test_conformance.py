"""What every runtime must do, run over each that this machine has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictors.peaks import measure_peaks
from predictors.runtimes.base import Network, Runtime, RuntimeMissing, example_inputs
from predictors.runtimes.onnx_file import onnx_file
from predictors.runtimes.registry import find_runtimes, load_runtime
from predictors.workload import PROVIDERS, RUNTIMES, Workload
from search.errors import InvalidInput, SnugnetError
from search.space import SubnetConfig
from tests.predictors.shapes import TINY

SUBNET = SubnetConfig(layers=(0, 2), num_heads=(1, 2), ffn_dim=(16, 32))
AVAILABLE = tuple(find_runtimes().available)


@pytest.fixture(params=AVAILABLE)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return load_runtime(request.param)


def workload_of(
    runtime: Runtime, *, batch_size: int = 1, seq_len: int = 8, threads: int = 1
) -> Workload:
    return Workload(runtime=runtime.name, batch_size=batch_size, seq_len=seq_len, threads=threads)


def network(folder: Path, subnet: SubnetConfig = SUBNET) -> Network:
    return Network(key="n0", shape=TINY, subnet=subnet, folder=folder)


def test_all_three_are_tested_here() -> None:
    assert RUNTIMES == AVAILABLE


def test_it_says_what_it_is(runtime: Runtime) -> None:
    assert runtime.version[0].isdigit()
    assert "cpu" in runtime.providers
    assert set(runtime.providers) <= set(PROVIDERS[runtime.name])
    assert "fp32" in runtime.precisions
    info = find_runtimes().available[runtime.name]
    assert (info.version, info.providers) == (runtime.version, runtime.providers)


def test_a_network_runs_in_every_precision_and_leaves_no_file(
    runtime: Runtime, tmp_path: Path
) -> None:
    for precision in runtime.precisions:
        ready = runtime.load(
            network(tmp_path, SUBNET.with_precision(precision)), workload_of(runtime)
        )
        ready.run()
        ready.run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sizes", [{"batch_size": 3, "seq_len": 16}, {"seq_len": 1}])
def test_every_size_of_input_runs(runtime: Runtime, tmp_path: Path, sizes: dict[str, int]) -> None:
    runtime.load(network(tmp_path), workload_of(runtime, **sizes)).run()


def test_more_threads_than_the_machine_has_run_too(runtime: Runtime, tmp_path: Path) -> None:
    runtime.load(network(tmp_path), workload_of(runtime, threads=4)).run()


def test_networks_of_different_threads_live_side_by_side(runtime: Runtime, tmp_path: Path) -> None:
    one = runtime.load(network(tmp_path), workload_of(runtime, threads=1))
    two = runtime.load(network(tmp_path), workload_of(runtime, threads=2))
    for ready in (one, two, one):
        ready.run()


def test_a_precision_that_it_does_not_build_is_refused_by_name(
    runtime: Runtime, tmp_path: Path
) -> None:
    if "int8" in runtime.precisions:
        pytest.skip("builds every precision")
    with pytest.raises(InvalidInput, match="int8") as caught:
        runtime.load(network(tmp_path, SUBNET.with_precision("int8")), workload_of(runtime))
    assert caught.value.field == "networks.n0.subnet.precision"


def test_a_file_is_run_or_refused_by_name(runtime: Runtime, tmp_path: Path) -> None:
    written = onnx_file(network(tmp_path)).rename(tmp_path / "model.onnx")
    given = Network(key="t0", shape=TINY, folder=tmp_path, file=written)
    if runtime.name == "torch":
        with pytest.raises(InvalidInput, match=r"networks\.t0\.blob"):
            runtime.load(given, workload_of(runtime))
    else:
        runtime.load(given, workload_of(runtime)).run()
    assert list(tmp_path.iterdir()) == [written]


def test_a_file_that_is_no_network_is_refused_by_name(runtime: Runtime, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"not a network")
    given = Network(key="t0", shape=TINY, folder=tmp_path, file=file)
    with pytest.raises(SnugnetError, match="t0"):
        runtime.load(given, workload_of(runtime))


def test_a_provider_that_the_machine_lacks_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    lacking = sorted(set(PROVIDERS[runtime.name]) - set(runtime.providers))
    for provider in lacking:
        with pytest.raises(RuntimeMissing):
            runtime.load(network(tmp_path), replace(workload_of(runtime), provider=provider))


def test_its_peaks_are_those_of_a_machine(runtime: Runtime) -> None:
    peaks = measure_peaks(runtime, workload_of(runtime))
    assert set(peaks["flops_per_s"]) == set(runtime.precisions)
    assert all(1e6 < value < 1e16 for value in peaks["flops_per_s"].values())
    assert 1e6 < peaks["bytes_per_s"] < 1e14


def test_inputs_are_real_tokens_of_the_workloads_size(tmp_path: Path) -> None:
    inputs = example_inputs(network(tmp_path), Workload(batch_size=2, seq_len=5))
    assert {value.shape for value in inputs.values()} == {(2, 5)}
    assert inputs["input_ids"].max() < TINY.vocab_size
    assert np.all(inputs["attention_mask"] == 1)


def test_runtimes_compute_the_same_function_of_the_same_file(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")
    path = onnx_file(network(tmp_path))
    inputs: dict[str, Any] = example_inputs(network(tmp_path), Workload(seq_len=8))
    (ours,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, inputs
    )
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    (theirs,) = compiled(inputs).values()
    assert np.allclose(ours, theirs, atol=1e-5)


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(InvalidInput, match="abacus"):
        load_runtime("abacus")
