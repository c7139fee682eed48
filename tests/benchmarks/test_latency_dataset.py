"""The collector of the data set, on tiny networks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import latency_dataset
from benchmarks.common import MINILM
from benchmarks.latency_dataset import (
    COLUMNS,
    SESSION_COLUMNS,
    choose_subnets,
    conditions,
    main,
)
from search.space import SearchSpace, SubnetConfig
from tests.predictors.shapes import TINY


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_dataset, "SHAPE", TINY)
    monkeypatch.setattr(latency_dataset, "SPACE", SearchSpace.for_shape(TINY))
    monkeypatch.setattr(latency_dataset, "RUNTIMES", (("onnxruntime", "int8"), ("torch", "fp32")))
    monkeypatch.setattr(latency_dataset, "THREADS", (1,))
    monkeypatch.setattr(latency_dataset, "BATCH_SIZES", (2,))
    monkeypatch.setattr(latency_dataset, "SEQ_LENS", (8,))
    monkeypatch.setattr(latency_dataset, "CHUNK_SIZE", 3)


def run(monkeypatch: pytest.MonkeyPatch, path: Path, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["latency_dataset", "--out", str(path), *arguments])
    assert main() == 0


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("tiny")
def test_an_interrupted_run_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "latency.csv"
    run(monkeypatch, path, "--subnets", "5", "--sessions", "2")
    first = path.read_text()
    with path.open("a") as file:  # a session that was cut off while it was written
        file.write("onnxruntime-int8-t1-b2-s8-c1,network,n003" + "," * (len(COLUMNS) - 3) + "\n")
    run(monkeypatch, path, "--subnets", "5")
    rows, sessions = read(path), read(tmp_path / "latency_sessions.csv")
    assert path.read_text().startswith(first)
    names = [session["session"] for session in sessions]
    assert len(names) == len(set(names)) == 2 * 2  # variants and chunks
    networks = [row for row in rows if row["role"] == "network"]
    assert len(networks) == 2 * 5
    assert len({row["key"] for row in networks}) == 5
    assert len([row for row in rows if row["role"] == "anchor"]) == 3 * len(sessions)
    before = path.read_text()
    run(monkeypatch, path, "--subnets", "5")
    assert path.read_text() == before


@pytest.mark.usefixtures("tiny")
def test_a_row_holds_the_network_its_figures_and_its_raw_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "latency.csv"
    run(monkeypatch, path, "--subnets", "3", "--sessions", "1")
    row = next(row for row in read(path) if row["role"] == "network")
    assert set(row) == set(COLUMNS)
    assert len(row["num_heads"].split("|")) == len(row["ffn_dim"].split("|"))
    rounds = [[int(us) for us in runs.split("|")] for runs in row["rounds_us"].split(";")]
    assert len(rounds) == len(row["factors"].split("|")) == len(row["reference_us"].split("|"))
    low, high = min(map(min, rounds)), max(map(max, rounds))
    assert 0.5 * low < 1e3 * float(row["median_ms"]) < 2 * high
    (session,) = read(tmp_path / "latency_sessions.csv")
    assert set(session) == set(SESSION_COLUMNS)
    assert float(session["flops_per_s"]) > 0
    assert session["runtime_version"]


def test_subnets_are_distinct_span_the_space_and_follow_the_seed() -> None:
    subnets = choose_subnets(200, 0)
    assert len(set(subnets)) == 200
    assert subnets == choose_subnets(200, 0) != choose_subnets(200, 1)
    assert SubnetConfig.full(MINILM) in subnets
    assert latency_dataset.SPACE.smallest.with_precision("fp32") in subnets


def test_the_whole_set_has_every_condition_once() -> None:
    names = [c.name for c in conditions(200, runtimes=latency_dataset.RUNTIMES)]
    assert len(names) == len(set(names)) == 4 * 2 * 2 * 2 * 2
    assert all(name.endswith("c0") for name in names[:32])
