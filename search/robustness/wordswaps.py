"""How many right answers about a text survive that somebody looks for words that break them."""

from __future__ import annotations

import random
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from search.data.texts import LabelledTexts
from search.robustness.probe import TextProbe
from search.robustness.sample import select
from search.robustness.vocabulary import Vocabulary
from search.training.confidence import Interval, wilson
from search.training.evaluate import Network
from search.training.rows import spread_places

MAX_QUERIES = 16
# Of which the one is kept that takes most from the right label.
QUERIES_AT_ONCE = 4
# One word in so many may be changed, and one at least.
WORDS_PER_EDIT = 5
# Draws of a change, of which many change nothing: a word without another like it, say.
TRIES_PER_EDIT = 8
CONFIDENCE = 0.95

Pieces = tuple[str, ...]
"""A text: what stands between words and the words in turns, these at odd places."""
Row = tuple[Pieces, ...]
"""A text, or a pair of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WordSwaps:
    """What the search for a break left.

    Attributes:
        num_right: rows that were answered rightly as they are.
        survived: share of these that stay right; None where there are none. It compares networks:
            somebody who tries harder breaks more.
        interval: of 95 %.
        mean_queries: that were asked for each of them, of `max_queries`.
    """

    num_rows: int
    num_right: int
    survived: float | None
    interval: Interval | None
    mean_queries: float
    max_queries: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_word_swaps(
    network: Network,
    probe: TextProbe,
    *,
    seed: int,
    num_rows: int,
    max_queries: int = MAX_QUERIES,
) -> WordSwaps:
    """Of a classifier of texts or pairs, on so many evenly spaced rows.

    Greedy as TextFooler (arXiv 1907.11932): of a few changes that one is kept which
    takes most from the right label's probability. A change swaps two neighbouring words, or puts
    a word of the training split in the place of another; see `Vocabulary.alike`.
    """
    places = spread_places(len(probe.texts), num_rows)
    hunts = [_Hunt(network, probe, place, seed) for place in places]
    outcomes = [survives for hunt in hunts if (survives := hunt.run(max_queries)) is not None]
    return WordSwaps(
        num_rows=len(places),
        num_right=len(outcomes),
        survived=sum(outcomes) / len(outcomes) if outcomes else None,
        interval=wilson(sum(outcomes), len(outcomes), CONFIDENCE) if outcomes else None,
        mean_queries=sum(hunt.num_queries for hunt in hunts) / max(1, len(outcomes)),
        max_queries=max_queries,
    )


class _Hunt:
    """For a change of one row that makes the network wrong."""

    def __init__(self, network: Network, probe: TextProbe, place: int, seed: int) -> None:
        row = select(probe.texts, [place])
        assert isinstance(row, LabelledTexts), "other texts have no one right answer"
        self._row, self._network, self._reader = row, network, probe.reader
        self._vocabulary = probe.vocabulary or Vocabulary({})
        self._rng = random.Random(f"swaps:{seed}:{place}")
        self.num_queries = 0

    def run(self, max_queries: int) -> bool | None:
        """Whether the right answer survives; None where there was none."""
        strings = (*self._row.texts, *(self._row.pairs or ()))
        texts: Row = tuple(tuple(re.split(r"(\w+)", text)) for text in strings)
        trust = self._trust(texts)
        if trust is None:
            return None
        num_edits = max(1, sum(len(text) // 2 for text in texts) // WORDS_PER_EDIT)
        while num_edits and self.num_queries < max_queries:
            edits = self._edits(texts, min(QUERIES_AT_ONCE, max_queries - self.num_queries))
            if not edits:
                break
            self.num_queries += len(edits)
            found = [(self._trust(edited), edited) for edited in edits]
            if any(left is None for left, _ in found):
                return False
            least, edited = min((left or 0.0, edited) for left, edited in found)
            if least < trust:
                texts, trust, num_edits = edited, least, num_edits - 1
        return True

    @torch.no_grad()
    def _trust(self, texts: Row) -> float | None:
        """The right label's probability; None where another one is the answer."""
        strings = ["".join(text) for text in texts]
        pairs = (strings[1],) if self._row.pairs else None
        rows = self._reader.read(replace(self._row, texts=(strings[0],), pairs=pairs))
        logits, label = self._network(rows.batch([0]))[0].double(), self._row.labels[0]
        if int(logits.argmax()) != label:
            return None
        return float(torch.softmax(logits, -1)[label])

    def _edits(self, texts: Row, count: int) -> list[Row]:
        """At most `count` different ones, of a single change each."""
        places = [(t, place) for t, text in enumerate(texts) for place in range(1, len(text), 2)]
        found: dict[Row, None] = {}
        for _ in range(TRIES_PER_EDIT * count if places else 0):
            t, place = self._rng.choice(places)
            change = self._rng.choice((self._swapped, self._replaced))
            edited = change(texts[t], place)
            if edited != texts[t] and len(found) < count:
                found[(*texts[:t], edited, *texts[t + 1 :])] = None
        return list(found)

    def _swapped(self, text: Pieces, place: int) -> Pieces:
        """With the next word; the last one stays."""
        if place + 2 >= len(text):
            return text
        first, between, second = text[place : place + 3]
        return (*text[:place], second, between, first, *text[place + 3 :])

    def _replaced(self, text: Pieces, place: int) -> Pieces:
        alike = self._vocabulary.alike(text[place])
        return (*text[:place], self._rng.choice(alike), *text[place + 1 :]) if alike else text
