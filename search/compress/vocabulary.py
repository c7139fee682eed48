"""A vocabulary without the pieces that the data do not use: most of a small network's file.

(Abdaoui et al., arXiv 2010.05609, did so for the languages of a multilingual BERT.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from tokenizers import Tokenizer
from torch import Tensor

from search.compress.configs import TrimVocabularyConfig
from search.compress.network import Compressed, StageData, blank
from search.compress.pieces import Spec, kept_ids
from search.compress.suitability import check_suits
from search.errors import InvalidInput
from search.model.transformer import ElasticTransformer
from search.shape import ModelShape
from search.training.batches import TokenRows
from search.training.rows import Rows


def trim_vocabulary(
    network: Compressed, config: TrimVocabularyConfig, data: StageData
) -> Compressed:
    """The network with the words alone that its training data use. Where all tokens of a text
    stay, its answer does too.

    Raises:
        InvalidInput: the network reads no texts, or its tokenizer is missing or none that can be
            trimmed, or a language model would lose tokens that it is trained on.
    """
    shape = network.model.shape
    check_suits(config, shape)
    if data.tokenizer is None:
        raise InvalidInput(config.kind, "needs the tokenizer that the rows were made with")
    counts = _counts(data, shape)
    used = (counts >= config.min_count).nonzero().flatten()
    kept = torch.tensor(kept_ids(data.tokenizer, used.tolist()))
    whole = network.kept_tokens
    return replace(
        network,
        model=with_words(network.model, kept),
        # Of the original's vocabulary, whatever was trimmed before.
        kept_tokens=kept if whole is None else whole[kept],
    )


def with_words(model: ElasticTransformer, kept: Tensor) -> ElasticTransformer:
    """A copy whose word i is the model's `kept[i]`, in its head too where that says words."""
    shape = model.shape
    says_words = shape.task == "language-modelling"
    smaller = blank(model, with_vocabulary(shape, len(kept)))
    tables = {"embeddings.word.weight"} | ({"head.weight"} if says_words else set())
    weights = {
        name: weight[kept] if name in tables else weight
        for name, weight in model.state_dict().items()
    }
    smaller.load_state_dict(weights)
    return smaller.train(model.training)


def with_vocabulary(shape: ModelShape, size: int) -> ModelShape:
    """The shape with `size` words, to read and, of a language model, to say."""
    says_words = shape.task == "language-modelling"
    return replace(shape, vocab_size=size, num_labels=size if says_words else shape.num_labels)


def fallen_share(rows: Rows, kept: Tensor) -> float:
    """Of the tokens of rows in the original's ids, those that were not kept."""
    assert isinstance(rows, TokenRows)
    return 1 - float(torch.isin(rows.tokens.long(), kept).double().mean())


def _counts(data: StageData, shape: ModelShape) -> Tensor:
    """How often each token is read or asked for, (vocab_size,)."""
    rows = data.task.train
    assert isinstance(rows, TokenRows)
    assert data.tokenizer is not None
    counts = torch.zeros(shape.vocab_size, dtype=torch.int64)
    read = [rows.tokens.long(), *_encoded(data.tokenizer, data.texts)]
    for tokens in [*read, rows.labels] if shape.task == "language-modelling" else read:
        counts += torch.bincount(tokens, minlength=shape.vocab_size)
    return counts


def _encoded(tokenizer: Spec, texts: Sequence[str]) -> Iterator[Tensor]:
    encoder = Tokenizer.from_str(json.dumps(tokenizer))
    encoder.no_padding()
    encoder.no_truncation()
    for text in texts:
        yield torch.tensor(encoder.encode(text).ids, dtype=torch.int64)
