"""Figures of the comparison, on a table whose truth can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import search_efficiency
from benchmarks.search_efficiency import (
    Run,
    Truth,
    evaluations_to,
    first_at,
    load_truth,
    search,
    volumes,
)
from benchmarks.subnet_table import Entry, write_table
from search.genotypes import all_networks
from search.space import SearchSpace

SPACE = SearchSpace(
    num_layers=(2, 3),
    num_heads=(4, 12),
    ffn_dim=(384, 1536),
    precision=("fp32", "int8"),
    layer_order=(5, 0, 3, 1, 2, 4),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quality grows with size, int8 costs a little, every seventh network disappoints."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    write_table(
        path,
        (
            Entry(
                subnet=subnet,
                num_right=700
                + sum(subnet.num_heads)
                + sum(subnet.ffn_dim) // 48
                - 5 * (subnet.precision == "int8")
                - 20 * (place % 7 == 0),
                num_rows=1000,
                loss=0.5,
            )
            for place, (_, subnet) in enumerate(all_networks(SPACE))
        ),
    )
    return path


@pytest.fixture(scope="module")
def truth(path: Path) -> Truth:
    return load_truth(path)


def test_regret_is_what_the_best_network_as_fast_has_more(truth: Truth) -> None:
    for place in range(0, len(truth.table), 10):
        latency, loss = truth.losses[place]
        as_fast = truth.losses[truth.losses[:, 0] <= latency, 1]
        assert truth.regret[place] == pytest.approx(loss - as_fast.min())
    front = {place for place in range(len(truth.table)) if truth.regret[place] == 0}
    assert truth.best(len(front) / len(truth.table)) == front


def test_all_of_the_table_is_all_of_the_volume(truth: Truth) -> None:
    run = Run(sampler="all", seed=0, places=tuple(range(len(truth.table))), seconds=0.0)
    curve = volumes(truth, run)
    assert curve[-1] == pytest.approx(1.0)
    assert (np.diff(curve) >= 0).all()
    count = 20
    assert curve[count - 1] == pytest.approx(truth.volume_of(truth.losses[:count]) / truth.volume)


def test_a_run_repeats_itself_and_evaluates_nothing_twice(path: Path) -> None:
    one, again = (search(path, 10, ("nsga2", 40, 3)) for _ in range(2))
    assert one.places == again.places
    assert len(set(one.places)) == 40


def test_evaluations_until_a_share_is_reached() -> None:
    curves = np.array([[0.5, 0.9, 0.96], [0.95, 0.97, 0.99], [0.1, 0.2, 0.3]])
    assert first_at(curves[0], 0.95) == 3
    assert first_at(curves[2], 0.95) is None
    assert evaluations_to(curves, 0.95) == {"median": 3.0, "reached": 2, "seeds": 3}
    assert evaluations_to(curves, 0.99) == {"median": None, "reached": 1, "seeds": 3}


def test_the_comparison_prints_its_figures(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_efficiency, "COUNTS", (10, 20))
    monkeypatch.setattr(search_efficiency, "BUDGET", 20)
    monkeypatch.setattr(search_efficiency, "BUDGETS", {})
    arguments = ["--from-table", str(path), "--samplers", "nsga2,random"]
    assert search_efficiency.main([*arguments, "--population", "10", "--seeds", "2"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["table"]["networks"] == SPACE.num_networks
    assert printed["samplers"].keys() == {"nsga2", "random"}
    for figures in printed["samplers"].values():
        volume = figures["hypervolume"]
        assert 0 < volume["10"]["min"] <= volume["10"]["mean"] <= volume["20"]["mean"] <= 1
    assert printed["evaluations_for"]["nsga2 at 20"]["nsga2"] <= 20
