"""What networks are asked when they are disturbed: clean rows, and the same with noise."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch

from search.data.dataset import Texts
from search.data.texts import LabelledTexts
from search.export.running import answers_of
from search.robustness.letters import alphabet_of, with_typing_errors
from search.robustness.sample import Sample, changed, strings_of
from search.robustness.vocabulary import Vocabulary
from search.shape import ModelShape
from search.training.batches import TokenRows
from search.training.encoding import TextReader
from search.training.evaluate import Network
from search.training.image_rows import ImageRows
from search.training.rows import Rows


class Probe(Protocol):
    """Rows that have answers, of a model of a shape."""

    @property
    def shape(self) -> ModelShape: ...

    @property
    def rows(self) -> Rows: ...

    @property
    def noise(self) -> str:
        """What `noised` disturbs."""

    def noised(self, rate: float, seed: int) -> Rows:
        """The same rows with the same answers; a rate of 0 changes nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextProbe:
    """Texts, with typing errors for noise: `rate` is the share of letters that are hit."""

    reader: TextReader
    texts: Texts
    rows: TokenRows
    vocabulary: Vocabulary | None
    noise: str = "letters"

    @classmethod
    def of(cls, sample: Sample, reader: TextReader, teacher: Network) -> Self:
        """Texts without labels are asked for the teacher's vectors."""
        rows = reader.read(sample.texts)
        if reader.shape.task == "sentence-embedding":
            rows = replace(rows, labels=answers_of(teacher, rows).detach())
        return cls(reader=reader, texts=sample.texts, rows=rows, vocabulary=sample.vocabulary)

    @property
    def shape(self) -> ModelShape:
        return self.reader.shape

    def read_by(self, reader: TextReader) -> Self:
        """The same texts and answers for a network of another vocabulary."""
        rows = reader.read(self.texts)
        if self._has_vectors:
            rows = replace(rows, labels=self.rows.labels)
        return replace(self, reader=reader, rows=rows)

    def noised(self, rate: float, seed: int) -> TokenRows:
        alphabet = alphabet_of(strings_of(self.texts))
        if not alphabet:
            return self.rows
        rngs = [random.Random(f"noise:{seed}:{row}") for row in range(len(self.texts))]
        noised = changed(
            self.texts, lambda row, text: with_typing_errors(text, rate, alphabet, rngs[row])
        )
        rows = self.reader.read(noised)
        return replace(rows, labels=self.rows.labels) if self._has_vectors else rows

    @property
    def has_classes(self) -> bool:
        """Whether each text has one right answer."""
        return isinstance(self.texts, LabelledTexts)

    @property
    def _has_vectors(self) -> bool:
        return self.rows.labels.is_floating_point()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageProbe:
    """Images, with normal noise on every pixel: `rate` is its deviation, as a share of the range.

    As in the corruptions of Hendrycks and Dietterich (arXiv 1903.12261).
    """

    shape: ModelShape
    rows: ImageRows
    noise: str = "pixels"

    def noised(self, rate: float, seed: int) -> ImageRows:
        rng = np.random.default_rng(seed)
        pixels = self.rows.pixels.numpy()
        noise = 255 * rate * rng.standard_normal(pixels.shape, dtype=np.float32)
        noised = np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
        return replace(self.rows, pixels=torch.from_numpy(noised))
