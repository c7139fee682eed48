"""Texts of a split as they were given: rows of tokens cannot be mistyped. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from search.data.dataset import Dataset, Texts
from search.data.documents import Documents, stretches
from search.data.splits import Splits
from search.data.tagged import TaggedTexts
from search.data.texts import LabelledTexts, PlainTexts
from search.robustness.vocabulary import Vocabulary

T = TypeVar("T")

MAX_TEXTS = 1000
MAX_VOCABULARY_ROWS = 20_000
# No text has so many for each token that is read of it; of what is read in blocks, a piece with
# two for each token fills one block as a rule, typing errors included.
MAX_CHARS_PER_TOKEN = 32
CHARS_PER_TOKEN = 2

_KINDS: dict[str, type[Texts]] = {
    kind.__name__: kind for kind in (LabelledTexts, PlainTexts, TaggedTexts, Documents)
}
_BY_ROW = ("texts", "pairs", "labels", "words", "tags", "lines")


@dataclass(frozen=True, slots=True)
class Sample:
    """Some of a test split's texts, evenly spaced, and the training split's words."""

    texts: Texts
    vocabulary: Vocabulary | None = None

    @classmethod
    def of(cls, dataset: Dataset, splits: Splits, max_seq_len: int) -> Self | None:
        """At most `MAX_TEXTS` of them; None of what are no texts.

        Args:
            max_seq_len: tokens to which a text is cut.
        """
        if isinstance(dataset, Documents):
            return cls(_pieces(select(dataset, splits.test), CHARS_PER_TOKEN * max_seq_len))
        if not isinstance(dataset, LabelledTexts | PlainTexts | TaggedTexts):
            return None
        places = _spread(splits.test, MAX_TEXTS)
        texts = select(dataset, places)
        if not isinstance(texts, TaggedTexts):
            longest = MAX_CHARS_PER_TOKEN * max_seq_len
            texts = changed(texts, lambda _, text: text[:longest])
        return cls(texts, _vocabulary(dataset, splits))

    def spread(self, count: int) -> Sample:
        """At most `count` of the texts, evenly spaced."""
        places = _spread(range(len(self.texts)), count)
        return replace(self, texts=select(self.texts, places))

    def save(self, path: Path) -> None:
        words = self.vocabulary.to_dict() if self.vocabulary else None
        kind = type(self.texts).__name__
        path.write_text(json.dumps({"kind": kind, "texts": asdict(self.texts), "words": words}))

    @classmethod
    def load(cls, path: Path) -> Self:
        stored = json.loads(path.read_text())
        fields = {name: _frozen(value) for name, value in stored["texts"].items()}
        words = stored["words"]
        return cls(
            _KINDS[stored["kind"]](**fields),
            None if words is None else Vocabulary.from_dict(words),
        )


def select(texts: Texts, places: Sequence[int]) -> Texts:
    """The rows at `places`, in that order."""
    rows: dict[str, Any] = {
        name: tuple(getattr(texts, name)[i] for i in places)
        for name in _BY_ROW
        if getattr(texts, name, None) is not None
    }
    return replace(texts, **rows)


def changed(texts: Texts, change: Callable[[int, str], str]) -> Texts:
    """With every text, or every word of tagged ones, as `change` makes it of the row's number."""
    if isinstance(texts, TaggedTexts):
        words = (tuple(change(i, w) for w in row) for i, row in enumerate(texts.words))
        return replace(texts, words=tuple(words))
    written: dict[str, Any] = {"texts": tuple(change(i, t) for i, t in enumerate(texts.texts))}
    if isinstance(texts, LabelledTexts | PlainTexts) and texts.pairs is not None:
        written["pairs"] = tuple(change(i, t) for i, t in enumerate(texts.pairs))
    return replace(texts, **written)


def strings_of(texts: Texts) -> list[str]:
    """Every text of every row."""
    if isinstance(texts, TaggedTexts):
        return [word for row in texts.words for word in row]
    pairs = None if isinstance(texts, Documents) else texts.pairs
    return [*texts.texts, *(pairs or ())]


def _pieces(documents: Texts, longest: int) -> Documents:
    assert isinstance(documents, Documents)
    pieces = [piece for text in documents.texts for piece in stretches(text, longest)]
    whole = [piece for piece in pieces if 2 * len(piece.strip()) > longest] or pieces
    return replace(documents, texts=tuple(_spread(whole, MAX_TEXTS)))


def _vocabulary(dataset: Dataset, splits: Splits) -> Vocabulary | None:
    if not isinstance(dataset, LabelledTexts):
        return None
    texts = select(dataset, _spread(splits.train, MAX_VOCABULARY_ROWS))
    assert isinstance(texts, LabelledTexts)
    labelled = [*zip(texts.texts, texts.labels, strict=True)]
    labelled += zip(texts.pairs or (), texts.labels, strict=False)
    return Vocabulary.of(labelled, len(dataset.label_names))


def _spread(values: Sequence[T], count: int) -> list[T]:
    size = min(count, len(values))
    return [values[i * len(values) // size] for i in range(size)]


def _frozen(value: Any) -> Any:
    """As a data set has it: JSON knows no tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
