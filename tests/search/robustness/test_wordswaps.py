from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from search.model.transformer import Batch
from search.robustness.vocabulary import Vocabulary
from search.robustness.wordswaps import WordSwaps, measure_word_swaps
from search.training.evaluate import Network
from tests.search.robustness.probes import BERT, LABELLED, guesses, knows_not, labelled, probe
from tests.search.training.tokenizers import WORDS

ALIKE = Vocabulary({"new": (20, 20), "not": (20, 20), "york": (20, 20), "a": (9, 9), "b": (9, 9)})
MANY = labelled(("york is not new", "a b is new") * 10, (0, 1) * 10)


class Counting:
    """A network that counts how often it is asked."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.num_calls = 0

    def __call__(self, batch: Batch) -> Tensor:
        self.num_calls += 1
        return self._network(batch)


def first_word(batch: Batch) -> Tensor:
    """Label 0 of a text that begins with `york`."""
    is_york = (batch.inputs[:, 1] == WORDS.index("york")).float()
    return torch.stack([is_york, 1 - is_york], 1)


def hunted(network: Network, folder: Path, seed: int = 0, **options: int) -> WordSwaps:
    asked = probe(folder, MANY, vocabulary=ALIKE)
    return measure_word_swaps(network, asked, seed=seed, **{"num_rows": 20, **options})


def test_a_network_that_hangs_on_one_word_is_broken_by_another(tmp_path: Path) -> None:
    found = hunted(knows_not, tmp_path)
    assert (found.num_rows, found.num_right) == (20, 20)
    assert found.survived is not None
    assert 0 <= found.survived < 0.8, "`not` may be replaced, and may be put in"
    assert found.interval is not None
    assert found.interval.lower <= found.survived <= found.interval.upper
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_a_network_that_hangs_on_the_order_is_broken_by_a_swap(tmp_path: Path) -> None:
    asked = probe(tmp_path, MANY)  # there are no words to replace others by
    found = measure_word_swaps(first_word, asked, seed=0, num_rows=20)
    assert found.survived == pytest.approx(0.5), "the texts of label 1 have no `york` to move"


def test_a_network_that_reads_nothing_cannot_be_broken(tmp_path: Path) -> None:
    found = hunted(guesses, tmp_path)
    assert (found.num_right, found.survived) == (10, 1.0), "right of half of the rows"


def test_a_network_that_is_never_right_has_nothing_to_survive(tmp_path: Path) -> None:
    def contrary(batch: Batch) -> Tensor:
        return -knows_not(batch)

    found = hunted(contrary, tmp_path)
    assert (found.num_right, found.survived, found.interval) == (0, None, None)


def test_the_same_seed_makes_the_same_changes(tmp_path: Path) -> None:
    assert hunted(knows_not, tmp_path) == hunted(knows_not, tmp_path)
    queries = {hunted(knows_not, tmp_path, seed).mean_queries for seed in range(4)}
    assert len(queries) > 1


def test_no_row_is_asked_about_more_often_than_allowed(tmp_path: Path) -> None:
    network = Counting(guesses)
    found = hunted(network, tmp_path, num_rows=6, max_queries=5)
    assert 0 < found.mean_queries <= 5
    assert network.num_calls == 6 + found.mean_queries * found.num_right
    assert hunted(guesses, tmp_path, num_rows=6, max_queries=0).survived == 1


def test_changes_that_take_trust_are_kept_until_the_network_is_wrong(tmp_path: Path) -> None:
    def counts_new(batch: Batch) -> Tensor:
        """Label 1 while `new` is in most of the ten places: three changes are needed."""
        share = (batch.inputs == WORDS.index("new")).float().sum(1) / 10
        return torch.stack([torch.full_like(share, 0.75), share], 1)

    texts = labelled([" ".join(["new"] * 10 + ["b"] * 5)] * 10, [1] * 10)
    asked = probe(tmp_path, texts, vocabulary=Vocabulary({"new": (9, 9), "not": (9, 9)}))
    enough = measure_word_swaps(counts_new, asked, seed=0, num_rows=10, max_queries=60)
    too_few = measure_word_swaps(counts_new, asked, seed=0, num_rows=10, max_queries=2)
    assert enough.survived is not None
    assert enough.survived < 0.5
    assert too_few.survived == 1


def test_the_second_text_of_a_pair_is_changed_too(tmp_path: Path) -> None:
    pairs = replace(labelled(["b"] * 10, [0] * 10), pairs=("not a york",) * 10)
    shape = replace(BERT, task="pair-classification")
    asked = probe(tmp_path, pairs, shape, vocabulary=ALIKE)
    found = measure_word_swaps(knows_not, asked, seed=0, num_rows=10)
    assert found.num_right == 10
    assert found.survived is not None
    assert found.survived < 1


def test_a_text_without_words_survives(tmp_path: Path) -> None:
    asked = probe(tmp_path, replace(LABELLED, texts=("!",) * 4, labels=(1,) * 4))
    found = measure_word_swaps(knows_not, asked, seed=0, num_rows=4)
    assert (found.survived, found.mean_queries) == (1.0, 0.0)
