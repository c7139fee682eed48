"""A network of whole numbers alone, simulated: what a processor without floats would answer.

Applied from outside, as `search.model.linears` is: matrices of 8 bits by activations of 8, their
scales chosen once from data; softmax, GELU and LayerNorm by `integer_ops`. Between two parts a
number is its whole part times its scale in float64, which holds both exactly; the next part
recovers the whole part. The residual sum is rounded where a norm reads it; the mean over tokens
and the head stay in floats. No runtime of ours has kernels for this: it tells a network's quality
on such a device, and nothing of its latency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from search.compress.integer_ops import Scaled, i_gelu, i_norm, i_softmax, scaled
from search.errors import InvalidInput
from search.model.linears import around_linears
from search.model.transformer import Attend, Attention, ElasticTransformer, FeedForward, Linear
from search.model.transformer import Norm as NormModule
from search.training.evaluate import batches_of
from search.training.rows import Rows

BITS = 8
GELU_BITS = 16
NORM_BITS = 22  # I-BERT's for what a LayerNorm reads
CALIBRATION_ROWS = 256

Peaks = Mapping[str, float]
Activation = Callable[[Tensor], Tensor]
Norm = Callable[..., Tensor]


class Parts(Protocol):
    """What is done in place of each part of a network, by the part's name."""

    def linear(self, name: str, inner: Linear) -> Linear: ...

    def norm(self, name: str, module: NormModule) -> Norm: ...

    def activation(self, name: str, inner: Activation) -> Activation: ...

    def attend(self, name: str, inner: Attend) -> Attend: ...


@torch.no_grad()
def peaks_of(model: ElasticTransformer, rows: Rows) -> Peaks:
    """The largest number that each part reads, over a few of the rows.

    Raises:
        InvalidInput: there are no rows.
    """
    if len(rows) == 0:
        raise InvalidInput("calibration", "there are no rows to calibrate with")
    watching = _Watching()
    with around_parts(model, watching):
        for _, batch in batches_of(model, rows.spread(CALIBRATION_ROWS)):
            model(batch)
    return watching.peaks


@contextmanager
def by_integers(model: ElasticTransformer, peaks: Peaks) -> Iterator[ElasticTransformer]:
    """Meanwhile `model`, which has to be in float64, computes by integers."""
    handle = model.register_forward_pre_hook(_in_double)
    try:
        with around_parts(model, _Integers(peaks)):
            yield model
    finally:
        handle.remove()


@contextmanager
def around_parts(model: ElasticTransformer, parts: Parts) -> Iterator[None]:
    """Meanwhile matrices, norms, activations and attention are what `parts` says."""
    changed: list[tuple[torch.nn.Module, str, Any]] = []

    def put(module: torch.nn.Module, name: str, value: Any) -> None:
        changed.append((module, name, module.__dict__.get(name)))
        setattr(module, name, value)

    for name, module in model.named_modules():
        if isinstance(module, NormModule):
            put(module, "forward", parts.norm(name, module))
        elif isinstance(module, FeedForward):
            put(module, "activation", parts.activation(name, module.activation))
        elif isinstance(module, Attention):
            put(module, "attend", parts.attend(name, module.attend))
    try:
        with around_linears(model, parts.linear):
            yield
    finally:
        for module, name, before in changed:
            if before is None:
                delattr(module, name)  # the class's own
            else:
                setattr(module, name, before)


class _Watching:
    """The parts as they are; the largest number that each one read is noted."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}

    def _note(self, name: str, x: Tensor) -> None:
        self.peaks[name] = max(self.peaks.get(name, 0.0), float(x.abs().max()))

    def linear(self, name: str, inner: Linear) -> Linear:
        def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            self._note(name, x)
            return inner(x, weight, bias)

        return linear

    def norm(self, name: str, module: NormModule) -> Norm:
        def norm(x: Tensor, gate_D: Tensor | None = None) -> Tensor:
            self._note(name, x)
            return NormModule.forward(module, x, gate_D)

        return norm

    def activation(self, name: str, inner: Activation) -> Activation:
        def activation(x: Tensor) -> Tensor:
            self._note(f"{name}.activation", x)
            return inner(x)

        return activation

    def attend(self, name: str, inner: Attend) -> Attend:
        def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
            for part, x in zip("qkv", (q, k, v), strict=True):
                self._note(f"{name}.{part}.read", x)
            return inner(q, k, v, bias)

        return attend


class _Integers:
    def __init__(self, peaks: Peaks) -> None:
        self._peaks = peaks

    def linear(self, name: str, inner: Linear) -> Linear:
        del inner
        peak = self._peaks[name]

        def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            given = scaled(x, peak, BITS)
            matrix = scaled(weight, weight.abs().amax(1, keepdim=True), BITS)
            scale = given.scale * matrix.scale.squeeze(1)
            whole = _product(given.whole, matrix.whole.T)
            if bias is not None:
                whole = whole + (bias / scale).round().long()
            return Scaled(whole, scale).value

        return linear

    def norm(self, name: str, module: NormModule) -> Norm:
        peak = self._peaks[name]

        def norm(x: Tensor, gate_D: Tensor | None = None) -> Tensor:
            assert gate_D is None, "importance is not measured by integers"
            assert module.bias is not None, "see `suitability.check_suits`"
            dim = x.shape[-1]
            given = scaled(x, peak, NORM_BITS)
            return i_norm(given, module.weight[:dim], module.bias[:dim]).value

        return norm

    def activation(self, name: str, inner: Activation) -> Activation:
        del inner
        peak = self._peaks[f"{name}.activation"]
        return lambda x: i_gelu(scaled(x, peak, GELU_BITS)).value

    def attend(self, name: str, inner: Attend) -> Attend:
        del inner
        peaks = [self._peaks[f"{name}.{part}.read"] for part in "qkv"]

        def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
            q_, k_, v_ = (scaled(x, peak, BITS) for x, peak in zip((q, k, v), peaks, strict=True))
            scores = Scaled(
                _product(q_.whole, k_.whole.mT), q_.scale * k_.scale / math.sqrt(q.shape[-1])
            )
            seen = (bias == 0).expand_as(scores.whole)
            probabilities = i_softmax(scores, seen)
            mixed = _product(probabilities.whole, v_.whole)
            return Scaled(mixed, probabilities.scale * v_.scale).value

        return attend


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Of whole numbers: float64 holds such sums exactly, and has fast kernels."""
    return (a.double() @ b.double()).long()


def _in_double(_module: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pixels become what the model computes in; ids stay."""
    batch, *rest = arguments
    if batch.inputs.is_floating_point():
        batch = batch._replace(inputs=batch.inputs.double())
    return (batch, *rest)
