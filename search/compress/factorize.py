"""A word table of a lower rank: a narrower table, and a matrix that spreads it over the stream."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from search.compress.configs import FactorizeConfig
from search.compress.network import Compressed, StageData, blank
from search.compress.suitability import check_suits
from search.model.transformer import ElasticTransformer
from search.training.batches import TokenRows


def factorize(network: Compressed, config: FactorizeConfig, data: StageData) -> Compressed:
    """The network with the table of a rank that is nearest to its own on the training split.

    Raises:
        InvalidInput: the network has no table, has it as its head too, or was factorized before.
    """
    shape = network.model.shape
    check_suits(config, shape)
    assert isinstance(data.task.train, TokenRows)
    counts = torch.bincount(data.task.train.tokens.long(), minlength=shape.vocab_size)
    rank = max(1, round(config.rank * network.model.sizes.width_in(shape)))
    return replace(network, model=with_rank(network.model, rank, counts))


def with_rank(model: ElasticTransformer, rank: int, counts: Tensor) -> ElasticTransformer:
    """A copy whose word table has `rank` features.

    The error of a word counts as often as the word is read: its row is weighted by the norm of
    its input, the square root of its count, as Wanda weighs a matrix's columns (arXiv 2306.11695).
    Words that were never read count once.

    Args:
        counts: of each word, (vocab_size,).
    """
    weights = model.state_dict()
    table = weights["embeddings.word.weight"]
    narrow, spread = factors(table, rank, (counts + 1.0).sqrt())
    smaller = blank(model, replace(model.shape, word_rank=narrow.shape[1]))
    changed = {"embeddings.word.weight": narrow, "embeddings.spread.weight": spread}
    smaller.load_state_dict(weights | changed)
    return smaller.train(model.training)


def factors(table: Tensor, rank: int, row_weights: Tensor) -> tuple[Tensor, Tensor]:
    """(words, rank) and (features, rank): of all such pairs, the one whose product has the least
    squared error, rows weighted (Eckart and Young, 1936).

    The weighted table's right singular vectors are all that is needed: D^-1 (D W V V^T) = W V V^T.
    """
    weighted = table.double() * row_weights.double().unsqueeze(1)
    _, vectors = torch.linalg.eigh(weighted.T @ weighted)  # by rising eigenvalue
    spread = vectors.flip(1)[:, :rank].to(table.dtype)
    return table @ spread, spread
