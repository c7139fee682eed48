"""Single weights set to zero: by magnitude, Wanda, movement or second order; 2:4 or anywhere.

What it buys is a file that compresses better. No runtime for processors here skips the zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from search.compress.configs import SparsifyConfig
from search.compress.network import Compressed, Masks, StageData, apply_masks_, copied
from search.compress.second_order import BlockFisher
from search.compress.training import copy_to_train, taught
from search.model.linears import InputNorms, around_linears, layer_matrix_names
from search.model.transformer import ElasticTransformer, Linear

NUM_UPDATES = 8  # of the masks while training goes on
RAMP = 2 / 3  # of the steps, over which the sparsity rises

Scores = Mapping[str, Tensor]


def sparsify(network: Compressed, config: SparsifyConfig, data: StageData) -> Compressed:
    """The network with `config.sparsity` of the weights of its layers' matrices at zero."""
    copy = copy_to_train if config.epochs else copied
    network = replace(network, model=copy(network.model))
    if not config.epochs:
        return _at_once(network, config, data)
    if config.score == "movement":
        return _by_movement(network, config, data)
    return _gradually(network, config, data)


def sparsity_at(step: int, num_steps: int, final: float) -> float:
    """It rises quickly at first, when there is much to remove, and slowly in the end (Zhu and
    Gupta, arXiv 1710.01878, equation 1)."""
    share = min(1.0, step / max(1.0, RAMP * num_steps))
    return final * (1 - (1 - share) ** 3)


def sparsity_of(model: ElasticTransformer) -> float:
    """Share of zeros among the weights of the layers' matrices."""
    parameters = dict(model.named_parameters())
    matrices = [parameters[name] for name in layer_matrix_names(model)]
    zeros = sum(int((matrix == 0).sum()) for matrix in matrices)
    return zeros / sum(matrix.numel() for matrix in matrices)


# --- ways to get there --------------------------------------------------------------------------


def _at_once(network: Compressed, config: SparsifyConfig, data: StageData) -> Compressed:
    masks = _remove_(network.model, config, data, config.sparsity)
    return replace(network, masks=masks)


def _gradually(network: Compressed, config: SparsifyConfig, data: StageData) -> Compressed:
    num_steps = data.num_steps(config.epochs)
    model = network.model
    update_at = _update_steps(num_steps)
    rising = _RisingMasks()

    def before_step(step: int) -> None:
        if step in update_at:
            model.eval()
            sparsity = sparsity_at(step, num_steps, config.sparsity)
            rising.masks = _remove_(model, config, data, sparsity)
            model.train()
        apply_masks_(model, rising.masks)

    network = taught(
        network,
        data,
        num_steps=num_steps,
        learning_rate=config.learning_rate,
        before_step=before_step,
        memory=rising,
    )
    return replace(network, masks=_in_host_memory(rising.masks))


class _RisingMasks:
    """Those of the last update."""

    def __init__(self) -> None:
        self.masks: Masks = {}

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.masks)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.masks = dict(tensors)


def _update_steps(num_steps: int) -> frozenset[int]:
    """The last one ends the ramp; the rest of the training is for recovery."""
    ramp = RAMP * num_steps
    return frozenset(
        max(1, min(num_steps, -int(-(ramp * update) // NUM_UPDATES)))
        for update in range(1, NUM_UPDATES + 1)
    )


def _by_movement(network: Compressed, config: SparsifyConfig, data: StageData) -> Compressed:
    """Masked weights go on learning behind their masks, and come back if they move away from
    zero (Sanh et al., arXiv 2005.07683, sections 3 and 4)."""
    num_steps = data.num_steps(config.epochs)
    model = network.model
    moved = _Movement(model, config)

    def before_step(step: int) -> None:
        moved.mask(sparsity_at(step, num_steps, config.sparsity))

    with moved.watched(), around_linears(model, moved.around):
        network = taught(
            network,
            data,
            num_steps=num_steps,
            learning_rate=config.learning_rate,
            before_step=before_step,
            memory=moved,
        )
    apply_masks_(model, moved.masks)
    return replace(network, masks=_in_host_memory(moved.masks))


class _Movement:
    """Scores that training adds up, and the masks that follow from them."""

    def __init__(self, model: ElasticTransformer, config: SparsifyConfig) -> None:
        parameters = dict(model.named_parameters())
        self._weights = {name: parameters[name] for name in layer_matrix_names(model)}
        self._scores = {name: torch.zeros_like(w) for name, w in self._weights.items()}
        self._config = config
        self.masks: Masks = {n: torch.ones_like(w) > 0 for n, w in self._weights.items()}

    def watched(self) -> AbstractContextManager[object]:
        """Meanwhile every gradient adds to the scores."""
        stack = _Handles()
        for name, weight in self._weights.items():
            stack.add(weight.register_hook(self._adding(name)))  # type: ignore[no-untyped-call]
        return stack

    def tensors(self) -> dict[str, Tensor]:
        return dict(self._scores)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, scores in self._scores.items():
            scores.copy_(tensors[name])

    def mask(self, sparsity: float) -> None:
        self.masks = masks_of(self._scores, replace(self._config, sparsity=max(sparsity, 1e-9)))

    def around(self, name: str, inner: Linear) -> Linear:
        def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            rows, columns = weight.shape
            mask = self.masks[name][:rows, :columns]
            # Forward as if masked; the gradient reaches every weight.
            return inner(x, weight - (weight * ~mask).detach(), bias)

        return linear

    def _adding(self, name: str) -> Callable[[Tensor], None]:
        def add(gradient: Tensor) -> None:
            self._scores[name] -= self._weights[name].detach() * gradient

        return add


class _Handles(nullcontext[None]):
    """Hooks that are removed in the end."""

    def __init__(self) -> None:
        super().__init__()
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def add(self, handle: torch.utils.hooks.RemovableHandle) -> None:
        self._handles.append(handle)

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


# --- what a weight is worth ---------------------------------------------------------------------


def _remove_(
    model: ElasticTransformer, config: SparsifyConfig, data: StageData, sparsity: float
) -> Masks:
    """Zero the least of the weights, in place; those of a second order move the others too."""
    config = replace(config, sparsity=sparsity) if config.pattern == "unstructured" else config
    if config.score == "second-order":
        fisher = BlockFisher.measure(model, data.batches_for(model))
        masks = masks_of(fisher.scores(), config)
        fisher.remove_(masks)
    else:
        masks = masks_of(_SCORES[config.score](model, data), config)
    apply_masks_(model, masks)
    return masks


def _magnitude(model: ElasticTransformer, _data: StageData) -> Scores:
    parameters = dict(model.named_parameters())
    return {name: parameters[name].detach().abs() for name in layer_matrix_names(model)}


def _wanda(model: ElasticTransformer, data: StageData) -> Scores:
    """|weight| times the norm of its input (Sun et al., arXiv 2306.11695, equation 1)."""
    norms = InputNorms(model)
    data.read_under(model, norms.around)
    return {
        name: size * norms[name].to(size.device) for name, size in _magnitude(model, data).items()
    }


_SCORES: Mapping[str, Callable[[ElasticTransformer, StageData], Scores]] = {
    "magnitude": _magnitude,
    "wanda": _wanda,
}


def _in_host_memory(masks: Masks) -> Masks:
    return {name: mask.cpu() for name, mask in masks.items()}


# --- masks --------------------------------------------------------------------------------------


def masks_of(scores: Scores, config: SparsifyConfig) -> Masks:
    """True where a weight stays. The least of them go: of every four neighbours, of each row
    (wanda), of the whole network (second order), or of each matrix."""
    if config.pattern == "2:4":
        return {name: _two_of_four(score) for name, score in scores.items()}
    if config.score == "second-order":
        everything = torch.cat([score.flatten() for score in scores.values()])
        least = _least(everything, config.sparsity)
        return {name: score > least for name, score in scores.items()}
    if config.score == "wanda":
        return {
            name: torch.stack([row > _least(row, config.sparsity) for row in score])
            for name, score in scores.items()
        }
    return {
        name: score > _least(score.flatten(), config.sparsity) for name, score in scores.items()
    }


def _least(scores: Tensor, sparsity: float) -> float:
    """The highest of the scores that go; less than all where none does."""
    count = round(sparsity * len(scores))
    return float(scores.kthvalue(count).values) if count else -float("inf")


def _two_of_four(score: Tensor) -> Tensor:
    """Along the rows, whose length is a multiple of four in every matrix that kernels like."""
    rows, columns = score.shape
    whole = columns // 4 * 4
    groups = score[:, :whole].reshape(rows, -1, 4)
    kept = torch.zeros_like(groups, dtype=torch.bool)
    kept.scatter_(2, groups.topk(2, dim=2).indices, value=True)
    rest = torch.ones(rows, columns - whole, dtype=torch.bool, device=score.device)
    return torch.cat([kept.reshape(rows, whole), rest], 1)
