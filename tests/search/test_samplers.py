"""Every sampler: the same records give the same children, in any process, in any order told."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest

from search.evolution import EvaluatedGenotype, ask_generation
from search.objectives import SIZE
from search.samplers import SAMPLERS
from search.space import SearchSpace
from tests.search.landscape import Landscape, search, with_size

SPACE = SearchSpace(
    num_layers=(2, 3, 4),
    num_heads=(1, 2, 4),
    ffn_dim=(16, 32, 64),
    precision=("fp32", "int8"),
    layer_order=(3, 0, 2, 1),
)
LANDSCAPE = Landscape(SPACE, seed=5)
NAMES = ("nsga2", "nsga3", "tpe", "gp", "random", "surrogate")
POPULATION = 6


def records() -> list[EvaluatedGenotype]:
    return search(
        LANDSCAPE,
        LANDSCAPE.task(),
        SAMPLERS["random"],
        generations=2,
        population=POPULATION,
        seed=1,
    )


def children(name: str, history: Sequence[EvaluatedGenotype]) -> list[dict[str, Any]]:
    found = ask_generation(
        LANDSCAPE.task(),
        history,
        SAMPLERS[name],
        generation=2,
        population=2 if name == "gp" else POPULATION,
        seed=9,
    )
    return [child.genotype for child in found]


def print_children_of_every_sampler() -> None:
    """Run in a process of its own: records as JSON in, children out."""
    history = [
        EvaluatedGenotype(**{**record, "values": tuple(record["values"])})
        for record in json.load(sys.stdin)
    ]
    print(json.dumps({name: children(name, history) for name in NAMES}))  # noqa: T201


@pytest.fixture(scope="module")
def asked_here() -> dict[str, list[dict[str, Any]]]:
    return {name: children(name, records()) for name in NAMES}


def test_the_names_are_those_that_a_job_may_give() -> None:
    assert tuple(SAMPLERS) == NAMES


def test_a_fresh_process_asks_the_same_children(
    asked_here: dict[str, list[dict[str, Any]]],
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from tests.search.test_samplers import print_children_of_every_sampler as run; run()",
        ],
        input=json.dumps([asdict(record) for record in records()]),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == asked_here


@pytest.mark.parametrize("name", NAMES)
def test_records_may_be_told_in_any_order(
    name: str, asked_here: dict[str, list[dict[str, Any]]]
) -> None:
    shuffled = records()
    random.Random(2).shuffle(shuffled)
    assert children(name, shuffled) == asked_here[name]


@pytest.mark.parametrize("name", NAMES)
def test_children_are_new_and_distinct(
    name: str, asked_here: dict[str, list[dict[str, Any]]]
) -> None:
    seen = {SPACE.decode(record.genotype).fingerprint for record in records()}
    found = [SPACE.decode(genotype).fingerprint for genotype in asked_here[name]]
    assert len(set(found)) == len(found)
    assert not seen & set(found)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gp"])
def test_a_third_objective_is_taken_in(name: str) -> None:
    task = with_size(LANDSCAPE.task())
    assert SIZE in task.objectives
    history = search(LANDSCAPE, task, SAMPLERS[name], generations=3, population=POPULATION, seed=0)
    assert len(history) == 3 * POPULATION
    assert all(len(record.values) == 3 for record in history)
