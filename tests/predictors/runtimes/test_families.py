"""Every family in every phase that it has, run by each runtime of this machine."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from predictors.bounds import PHASES_OF_FAMILY
from predictors.runtimes.base import Network, Runtime
from predictors.runtimes.registry import find_runtimes, load_runtime
from predictors.workload import Workload
from search.shape import ModelShape
from search.space import SearchSpace
from tests.search.families import SHAPES

CASES = [(name, phase) for name in SHAPES for phase in PHASES_OF_FAMILY[name]]


@pytest.fixture(params=tuple(find_runtimes().available))
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return load_runtime(request.param)


def workload_of(runtime: Runtime, shape: ModelShape, phase: str) -> Workload:
    seq_len = shape.max_seq_len if shape.reads_images else 8
    return Workload(runtime=runtime.name, batch_size=2, seq_len=seq_len, phase=phase)


@pytest.mark.parametrize(("name", "phase"), CASES)
def test_a_network_runs_as_often_as_it_is_asked(
    runtime: Runtime, tmp_path: Path, name: str, phase: str
) -> None:
    shape = SHAPES[name]
    drawn = SearchSpace.for_shape(shape, "wide").sample(random.Random(1))
    for precision in runtime.precisions:
        network = Network(
            key="n0", shape=shape, subnet=drawn.with_precision(precision), folder=tmp_path
        )
        ready = runtime.load(network, workload_of(runtime, shape, phase))
        for _ in range(3):
            ready.run()
    assert list(tmp_path.iterdir()) == []
