from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from search.data.documents import Documents
from search.model.transformer import Batch
from search.robustness.noise import RATES, measure_noise
from tests.search.families import SHAPES
from tests.search.robustness.probes import BERT, guesses, knows_not, labelled, probe

MANY = labelled(("york is not new", "a b is new") * 40, (0, 1) * 40)


def test_without_noise_a_network_is_as_good_as_it_is(tmp_path: Path) -> None:
    found = measure_noise(knows_not, probe(tmp_path, MANY), seed=0, rates=(0.0,))
    assert found.clean == found.levels[0].quality == 1.0
    assert (found.kind, found.metric, found.num_rows) == ("letters", "accuracy", 80)


def test_a_network_that_knows_one_word_loses_what_it_is_mistyped_in(tmp_path: Path) -> None:
    found = measure_noise(knows_not, probe(tmp_path, MANY), seed=0, rates=(0.05, 0.2, 0.9))
    few, some, nearly_all = (level.quality for level in found.levels)
    assert 1.0 > few > some > nearly_all >= 0.5
    for level in found.levels:
        assert level.interval.lower < level.quality < level.interval.upper


def test_a_network_that_reads_nothing_has_nothing_to_lose(tmp_path: Path) -> None:
    found = measure_noise(guesses, probe(tmp_path, MANY), seed=0)
    assert [level.rate for level in found.levels] == list(RATES)
    assert {level.quality for level in found.levels} == {found.clean} == {0.5}


def test_the_likelihood_of_a_text_counts_and_not_that_of_its_many_more_tokens(
    tmp_path: Path,
) -> None:
    def uniform(batch: Batch) -> Tensor:
        return torch.zeros(*batch.inputs.shape, 64 * 8)

    documents = Documents(texts=("the cat sat on the mat " * 2,) * 5, num_documents=5)
    shape = replace(SHAPES["gpt2"], vocab_size=64 * 8, num_labels=64 * 8)
    asked = probe(tmp_path, documents, shape)
    found = measure_noise(uniform, asked, seed=0, rates=(0.0, 0.5))
    assert found.clean == pytest.approx(found.levels[0].quality)
    tokens = [float(asked.noised(rate, 0).lengths.sum()) for rate in (0.0, 0.5)]
    assert tokens[1] > 1.5 * tokens[0]
    assert found.levels[1].quality / found.clean == pytest.approx(tokens[1] / tokens[0])


def test_vectors_are_held_against_those_of_the_clean_texts(tmp_path: Path) -> None:
    def counts(batch: Batch) -> Tensor:
        return torch.stack([torch.bincount(row, minlength=64).float() for row in batch.inputs])

    shape = replace(BERT, task="sentence-embedding", num_labels=0)
    found = measure_noise(counts, probe(tmp_path, MANY, shape, teacher=counts), seed=0)
    assert found.metric == "cosine"
    assert found.clean == pytest.approx(1.0)
    assert found.clean > found.levels[0].quality > found.levels[-1].quality > 0


def test_it_is_plain_data(tmp_path: Path) -> None:
    found = measure_noise(knows_not, probe(tmp_path), seed=0, rates=(0.0,)).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["levels"][0].keys() == {"rate", "quality", "interval"}
