"""Words of a training split, and which of them may stand for which. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np

WORD = re.compile(r"\w+")

MAX_WORDS = 5000
# Of a rarer word nobody knows what it leans to.
MIN_COUNT = 5
MAX_LENGTH_DIFFERENCE = 2
MAX_FREQUENCY_RATIO = 2.0
MAX_LEANING_DISTANCE = 0.15
# Rows of each label that a word is taken to have stood in besides, by the labels' own shares.
PRIOR_COUNT = 2.0


class Vocabulary:
    """How often each word stands in rows of each label."""

    def __init__(self, counts: Mapping[str, tuple[int, ...]]) -> None:
        """`counts` has the occurrences of a word by label."""
        self.counts = dict(counts)
        self._words = list(self.counts)
        self._places = {word: place for place, word in enumerate(self._words)}
        self._lengths = np.array([len(word) for word in self._words])
        table = np.array(list(self.counts.values()), dtype=np.float64)
        self._totals = table.sum(1) if self._words else np.zeros(0)
        if self._words:
            prior = table.sum(0) / table.sum()
            smoothed = table + PRIOR_COUNT * prior
            self._shares = smoothed / smoothed.sum(1, keepdims=True)

    @classmethod
    def of(cls, texts: Iterable[tuple[str, int]], num_labels: int) -> Self:
        """The most frequent words of texts, each given with its label."""
        counts: dict[str, list[int]] = {}
        for text, label in texts:
            for word in WORD.findall(text):
                counts.setdefault(word, [0] * num_labels)[label] += 1
        frequent = sorted(counts, key=lambda word: (-sum(counts[word]), word))[:MAX_WORDS]
        return cls({w: tuple(counts[w]) for w in frequent if sum(counts[w]) >= MIN_COUNT})

    def alike(self, word: str) -> list[str]:
        """Other words about as long, as frequent, and as telling of each label.

        The last of these stands for the word vectors that TextFooler (arXiv 1907.11932)
        chooses synonyms by: without it a word would be replaced by its opposite, and the
        right answer with it. It is the distance of total variation of the shares of labels.
        """
        place = self._places.get(word)
        if place is None:
            return []
        ratio = self._totals / self._totals[place]
        distance = np.abs(self._shares - self._shares[place]).sum(1) / 2
        is_alike = (
            (np.abs(self._lengths - len(word)) <= MAX_LENGTH_DIFFERENCE)
            & (ratio <= MAX_FREQUENCY_RATIO)
            & (ratio >= 1 / MAX_FREQUENCY_RATIO)
            & (distance <= MAX_LEANING_DISTANCE)
        )
        return [self._words[i] for i in np.flatnonzero(is_alike) if i != place]

    def to_dict(self) -> dict[str, list[int]]:
        return {word: list(counts) for word, counts in self.counts.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls({word: tuple(counts) for word, counts in data.items()})
