"""Texts that a tokenizer of a few words reads, and networks that a line can say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from search.data.dataset import Texts
from search.data.texts import LabelledTexts
from search.model.transformer import Batch
from search.robustness.probe import TextProbe
from search.robustness.sample import Sample
from search.robustness.vocabulary import Vocabulary
from search.shape import ModelShape
from search.training.encoding import TextReader, load_tokenizer
from search.training.evaluate import Network
from tests.search.families import SHAPES
from tests.search.training.tokenizers import WORDS, write_bytes, write_wordpiece

TEXTS = ("new york is a b", "york is not new", "a b is new", "is not a york")
BERT = replace(SHAPES["bert"], num_labels=2)
LABELLED = LabelledTexts(texts=TEXTS, labels=(1, 0, 1, 0), label_names=("not", "so"))


def knows_not(batch: Batch) -> Tensor:
    """Label 0 of texts with `not`, with a trust of 0.9: right of every text of `LABELLED`."""
    has_not = (batch.inputs == WORDS.index("not")).any(1)
    sure = torch.log(torch.tensor([0.9, 0.1]))
    return torch.where(has_not[:, None], sure, sure.flip(0))


def guesses(batch: Batch) -> Tensor:
    """Label 0 of everything."""
    return torch.log(torch.tensor([[0.7, 0.3]])).expand(len(batch.inputs), 2)


def reader(folder: Path, shape: ModelShape = BERT, max_seq_len: int = 16) -> TextReader:
    """Words of BERT, bytes of a language model."""
    write = write_bytes if shape.is_causal else write_wordpiece
    return TextReader(load_tokenizer(write(folder) / "tokenizer.json"), shape, max_seq_len)


def probe(
    folder: Path,
    texts: Texts = LABELLED,
    shape: ModelShape = BERT,
    *,
    vocabulary: Vocabulary | None = None,
    teacher: Network = knows_not,
) -> TextProbe:
    return TextProbe.of(Sample(texts, vocabulary), reader(folder, shape), teacher)


def labelled(texts: Sequence[str], labels: Sequence[int]) -> LabelledTexts:
    return LabelledTexts(texts=tuple(texts), labels=tuple(labels), label_names=("not", "so"))
