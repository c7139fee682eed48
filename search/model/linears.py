"""What happens at a network's matrices, seen or changed from outside, for as long as it is asked.

A matrix is used through slices that begin where its parameter does: by that its name is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from search.model.transformer import ElasticTransformer, Linear

Around = Callable[[str, Linear], Linear]
"""Name of a matrix and how it is applied; returns how it is to be applied instead."""


def layer_matrix_names(model: ElasticTransformer) -> tuple[str, ...]:
    """Of every matrix between the embeddings and the head, in a fixed order."""
    return tuple(
        name
        for name, parameter in model.named_parameters()
        if name.startswith("layers.") and parameter.dim() == 2
    )


@contextmanager
def around_linears(model: ElasticTransformer, around: Around) -> Iterator[None]:
    """Meanwhile every matrix of the layers is applied as `around` says."""
    parameters = dict(model.named_parameters())
    names = {parameters[name].data_ptr(): name for name in layer_matrix_names(model)}
    plain = model._linear

    def linear_of(*, is_int8: bool) -> Linear:
        inner = plain(is_int8=is_int8)

        def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            name = names.get(weight.data_ptr())
            return inner(x, weight, bias) if name is None else around(name, inner)(x, weight, bias)

        return linear

    model._linear = linear_of  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model._linear


class InputNorms:
    """Of every matrix of a network, the norm of each of its inputs over all tokens that it read.

    Padding is counted in: its states are as real to a matrix as others.
    """

    def __init__(self, model: ElasticTransformer) -> None:
        parameters = dict(model.named_parameters())
        self._squares = {
            name: torch.zeros(parameters[name].shape[1], dtype=torch.float64)
            for name in layer_matrix_names(model)
        }

    def around(self, name: str, inner: Linear) -> Linear:
        def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            flat = x.detach().flatten(0, -2).double()
            self._squares[name][: flat.shape[1]] += flat.square().sum(0).cpu()
            return inner(x, weight, bias)

        return linear

    def __getitem__(self, name: str) -> Tensor:
        """(in,), float32."""
        return self._squares[name].sqrt().float()


class InputMoments:
    """Of some matrices' inputs, the first two moments over all tokens that they read, padding too.

    Args:
        names: of the matrices.
    """

    def __init__(self, model: ElasticTransformer, names: Sequence[str]) -> None:
        parameters = dict(model.named_parameters())
        widths = {name: parameters[name].shape[1] for name in names}
        self._sums = {n: torch.zeros(w, dtype=torch.float64) for n, w in widths.items()}
        self._products = {n: torch.zeros(w, w, dtype=torch.float64) for n, w in widths.items()}
        self._counts = dict.fromkeys(names, 0)

    def around(self, name: str, inner: Linear) -> Linear:
        if name not in self._counts:
            return inner

        def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            flat = x.detach().flatten(0, -2).double()
            self._sums[name] += flat.sum(0).cpu()
            self._products[name] += (flat.T @ flat).cpu()
            self._counts[name] += len(flat)
            return inner(x, weight, bias)

        return linear

    def mean(self, name: str) -> Tensor:
        """(in,), float64."""
        return self._sums[name] / self._counts[name]

    def second(self, name: str) -> Tensor:
        """Mean of x x^T, (in, in), float64: the covariance is what the mean's leaves of it."""
        return self._products[name] / self._counts[name]
