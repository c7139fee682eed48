"""What a session would take of a machine's memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from predictors.measuring import run_measuring_spec
from predictors.memory import (
    SpecTooLarge,
    check_memory,
    groups_by_size,
    groups_that_fit,
    loaded_bytes,
    needed_bytes,
)
from predictors.spec import MeasuringSpec, NetworkSpec
from predictors.workload import Workload
from search.space import SubnetConfig
from tests.predictors.shapes import MINILM

GIBIBYTE = 2**30


def spec(workload: Workload, *, networks: int = 20, **sizes: Any) -> MeasuringSpec:
    shape = replace(MINILM, **sizes)
    full = SubnetConfig.full(shape)
    return MeasuringSpec(
        workload=workload,
        shape=shape,
        reference=NetworkSpec(key="reference", subnet=full),
        networks=tuple(NetworkSpec(key=f"n{i}", subnet=full) for i in range(networks)),
    )


def test_a_session_is_as_large_as_its_weights_and_activations_make_it() -> None:
    small, large = spec(Workload()), spec(Workload(batch_size=512, seq_len=512))
    assert needed_bytes(small) < 0.5 * GIBIBYTE
    assert needed_bytes(large) > needed_bytes(small) + 5 * GIBIBYTE
    assert needed_bytes(spec(Workload(), embed_dim=4096, ffn_dim=16384)) > 5 * GIBIBYTE


def test_a_file_counts_with_its_whole_word_table() -> None:
    asked = spec(Workload())
    built = NetworkSpec(key="n", subnet=asked.reference.subnet)
    fetched = replace(built, blob="ab" * 32)
    tables = 4 * (MINILM.vocab_size - 1000) * MINILM.embed_dim
    assert loaded_bytes(asked, fetched) - loaded_bytes(asked, built) >= 2 * tables


def test_what_cannot_fit_is_refused_with_both_figures() -> None:
    asked = spec(Workload(batch_size=1024, seq_len=512))
    with pytest.raises(SpecTooLarge, match="GB") as caught:
        check_memory(asked, 4 * GIBIBYTE)
    assert caught.value.code == "spec_too_large"
    assert caught.value.needed_bytes > caught.value.allowed_bytes
    check_memory(spec(Workload()), 4 * GIBIBYTE)


def test_a_spec_that_would_exhaust_this_machine_is_refused_before_anything_is_built() -> None:
    huge = spec(
        Workload(), num_layers=256, embed_dim=16384, num_heads=128, head_dim=128, ffn_dim=65536
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SpecTooLarge):
        run_measuring_spec(huge)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_networks_are_loaded_in_groups_that_fit_into_memory() -> None:
    sizes = {"a": 4, "b": 4, "c": 9, "d": 30, "e": 2}
    assert groups_by_size(sizes, 10) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert groups_by_size(sizes, 1000) == [["a", "b", "c", "d", "e"]]
    asked = spec(Workload())
    groups = groups_that_fit(asked, needed_bytes(asked) * 3)
    assert len(groups) > 1
    assert [n.key for group in groups for n in group] == [f"n{i}" for i in range(20)]


def test_the_estimate_is_not_below_what_a_real_network_takes() -> None:
    code = """
import resource
from pathlib import Path
from predictors.runtimes.base import Network
from predictors.runtimes.registry import load_runtime
from predictors.workload import Workload
from search.space import SubnetConfig
from tests.predictors.shapes import MINILM, TINY
import sys, tempfile

def grown(shape, batch_size):
    folder = Path(tempfile.mkdtemp())
    network = Network(key="n", shape=shape, subnet=SubnetConfig.full(shape), folder=folder)
    workload = Workload(batch_size=batch_size, seq_len=16)
    load_runtime("onnxruntime").load(network, workload).run()
    folder.rmdir()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

small = grown(TINY, 1)
print(grown(MINILM, 8) - small)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    asked = spec(Workload(batch_size=8, seq_len=16))
    assert int(done.stdout) <= needed_bytes(asked)
