"""Import of a plain Hugging Face folder: safetensors and config.json, nothing executed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from search.errors import InvalidInput
from search.families.config import CONFIG_FILE
from search.families.family import StoredTensor
from search.families.registry import family_of
from search.model.checkpoint import CheckedModel, check_model_folder
from search.model.transformer import ElasticTransformer
from search.shape import ModelShape


def import_model(folder: Path, shape: ModelShape, seed: int) -> ElasticTransformer:
    """The model of `folder` for the task and labels of `shape`, in fp32.

    The head is the folder's where it has one of as many labels, and fresh from `seed` otherwise.

    Raises:
        InvalidInput: the folder holds no such model; see `check_model_folder`.
    """
    checked = check_model_folder(folder, num_labels=shape.num_labels, task=shape.task)
    if checked.shape != shape:
        raise InvalidInput(CONFIG_FILE, f"asks for {checked.shape}, not for {shape}")
    torch.manual_seed(seed)
    model = ElasticTransformer(checked.shape)
    fill_(model, folder, _tensors(checked), checked.tensors)
    return model


def fill_(
    model: ElasticTransformer,
    folder: Path,
    tensors: Iterable[StoredTensor],
    places: Mapping[str, str],
) -> None:
    """Copies checked tensors into the model, in fp32; `places` has the file of each by name."""
    target = dict(model.named_parameters())
    with ExitStack() as stack, torch.no_grad():
        files: dict[str, Any] = {
            name: stack.enter_context(safe_open(folder / name, framework="pt"))
            for name in set(places.values())
        }
        for tensor in tensors:
            value = files[places[tensor.name]].get_tensor(tensor.name).float()
            for part in tensor.parts:
                place = target[part.name]
                (place if part.row is None else place[part.row]).copy_(part.take(value))


def _tensors(checked: CheckedModel) -> Iterator[StoredTensor]:
    family = family_of(checked.shape.family)
    for tensor in family.body(checked.shape):
        yield replace(tensor, name=checked.prefix + tensor.name)
    if checked.has_head:
        yield from family.head(checked.shape)
