"""Feed-forward matrices of a lower rank: each the product of two narrower ones."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import Tensor

from search.compress.configs import FactorizeFfnConfig
from search.compress.network import Compressed, StageData, blank
from search.compress.suitability import check_suits
from search.errors import InvalidInput
from search.model.linears import InputMoments, layer_matrix_names
from search.model.transformer import ElasticTransformer

# Of the inputs' mean variance, added to each: directions never seen count for a little.
DAMPING = 1e-4


def factorize_ffn(network: Compressed, config: FactorizeFfnConfig, data: StageData) -> Compressed:
    """The network whose feed-forward matrices have the rank, their outputs on a few batches of the
    training split changed as little as can be.

    Raises:
        InvalidInput: they have a lower rank already, or a layer has fewer neurons than the rank.
    """
    model = network.model
    check_suits(config, model.shape)
    rank = max(1, round(config.rank * model.sizes.width_in(model.shape)))
    if rank > min(model.sizes.ffn_dim):
        raise InvalidInput(
            f"{config.kind}.rank",
            f"must leave at most the {min(model.sizes.ffn_dim)} neurons of the narrowest layer",
        )
    moments = InputMoments(model, _ffn_matrices(model))
    data.read_under(model, moments.around)
    return replace(network, model=with_ffn_rank(model, rank, moments))


def with_ffn_rank(
    model: ElasticTransformer, rank: int, moments: InputMoments
) -> ElasticTransformer:
    """A copy whose feed-forward matrices are products over `rank` features.

    Args:
        moments: of the inputs of all these matrices.
    """
    weights = model.state_dict()
    for name in _ffn_matrices(model):
        bias = name.replace(".weight", ".bias")
        # Without a bias to take it up, the inputs' mean has to go through the factors.
        mean = moments.mean(name) if bias in weights else torch.zeros_like(moments.mean(name))
        centred = moments.second(name) - torch.outer(mean, mean)
        whole = weights[name]
        outer, low = factors(whole, rank, centred)
        weights |= {name: outer, name.replace(".weight", "_low.weight"): low}
        if bias in weights:
            lost = (whole - outer @ low).double() @ mean.to(whole.device)
            weights[bias] = weights[bias] + lost.to(whole.dtype)
    smaller = blank(model, replace(model.shape, ffn_rank=rank))
    smaller.load_state_dict(weights)
    return smaller.train(model.training)


def factors(weight: Tensor, rank: int, second: Tensor) -> tuple[Tensor, Tensor]:
    """(out, rank) and (rank, in): of all such pairs, the one whose product has the least squared
    error of its outputs.

    For inputs of second moment S S^T it is (W S)_r S^-1, by the best approximation of rank r of
    W S (SVD-LLM, arXiv 2403.07378, section 3.1). With U its first left singular vectors that
    is U U^T W: outputs are kept along the directions in which they vary most.

    Args:
        second: mean of x x^T over inputs x, (in, in), float64.
    """
    damping = DAMPING * second.diagonal().mean() + 1e-12
    root = torch.linalg.cholesky(second + damping * torch.eye(len(second), dtype=second.dtype))
    exact = weight.detach().double().cpu()
    directions, _, _ = torch.linalg.svd(exact @ root, full_matrices=False)
    outer = directions[:, :rank]
    low = outer.T @ exact
    return outer.to(weight), low.to(weight)


def _ffn_matrices(model: ElasticTransformer) -> tuple[str, ...]:
    return tuple(n for n in layer_matrix_names(model) if re.search(r"\.ffn\.(gate|up|down)\.", n))
