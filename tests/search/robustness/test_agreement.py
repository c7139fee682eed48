from __future__ import annotations

import json
from dataclasses import replace
from math import log
from pathlib import Path

import pytest
import torch
from torch import Tensor

from search.model.transformer import Batch
from search.robustness.agreement import measure_agreement
from tests.search.export.test_running import CASES, rows_for
from tests.search.families import network_of
from tests.search.robustness.probes import BERT, guesses, knows_not, labelled, probe


@pytest.mark.parametrize("case", list(CASES))
def test_a_network_agrees_with_itself(case: str) -> None:
    model = network_of(CASES[case])

    def network(batch: Batch) -> Tensor:
        logits: Tensor = model(batch).logits
        return logits

    found = measure_agreement(network, network, rows_for(case), CASES[case])
    assert found.share == pytest.approx(1.0, abs=1e-6)
    assert found.divergence == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("case", list(CASES))
def test_another_network_agrees_less(case: str) -> None:
    models = [network_of(CASES[case], seed) for seed in (0, 1)]
    networks = [lambda batch, model=model: model(batch).logits for model in models]
    found = measure_agreement(networks[0], networks[1], rows_for(case), CASES[case])
    assert found.share < 1
    assert found.divergence > 0.01


def test_labels_and_divergence_are_those_which_a_hand_computes(tmp_path: Path) -> None:
    found = measure_agreement(guesses, knows_not, probe(tmp_path).rows, BERT)
    assert found.share == 0.5, "guesses gives label 0 of everything, the teacher of half"
    agreed = 0.9 * log(0.9 / 0.7) + 0.1 * log(0.1 / 0.3)
    apart = 0.1 * log(0.1 / 0.7) + 0.9 * log(0.9 / 0.3)
    assert found.divergence == pytest.approx((agreed + apart) / 2)
    assert found.interval.lower < 0.5 < found.interval.upper
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_labels_of_the_rows_play_no_part(tmp_path: Path) -> None:
    rows = probe(tmp_path).rows
    swapped = replace(rows, labels=1 - rows.labels)
    assert measure_agreement(guesses, knows_not, rows, BERT) == measure_agreement(
        guesses, knows_not, swapped, BERT
    )


def test_vectors_agree_by_their_cosine(tmp_path: Path) -> None:
    shape = replace(BERT, task="sentence-embedding", num_labels=0)

    def teacher(batch: Batch) -> Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(batch.inputs), 2)

    def network(batch: Batch) -> Tensor:
        return torch.tensor([[3.0, 4.0]]).expand(len(batch.inputs), 2)

    asked = probe(tmp_path, labelled(["a b"], [0]), shape, teacher=teacher)
    found = measure_agreement(network, teacher, asked.rows, shape)
    assert found.share == pytest.approx(0.6)
    assert found.divergence == pytest.approx(0.4)


def test_a_teacher_of_other_words_reads_its_own_rows(tmp_path: Path) -> None:
    """One id more for every word: to the rows that it does not know, it would say otherwise."""
    rows = probe(tmp_path).rows
    moved = replace(rows, tokens=rows.tokens + 1)

    def reads_moved(batch: Batch) -> Tensor:
        return knows_not(batch._replace(inputs=batch.inputs - 1))

    apart = measure_agreement(knows_not, reads_moved, rows, BERT)
    assert apart.share < 1
    found = measure_agreement(knows_not, reads_moved, rows, BERT, teacher_rows=moved)
    assert found.share == 1
    assert found.divergence == pytest.approx(0, abs=1e-6)
