"""A network as a plain Hugging Face folder: the inverse of `search.model.importing`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from search.errors import InvalidInput
from search.families.config import CONFIG_FILE
from search.families.family import Part, StoredTensor
from search.families.registry import family_of
from search.model.checkpoint import WEIGHTS_FILE
from search.model.transformer import ElasticTransformer
from search.space import SubnetConfig


def write_model(model: ElasticTransformer, folder: Path, label_names: Sequence[str] = ()) -> None:
    """Writes config.json and model.safetensors; tokenizer and preprocessor are the caller's.

    A head is written where `import_model` would read it: of whole texts there is none, since the
    library's classes of that name pool otherwise than ours.

    Raises:
        InvalidInput: layers differ in width, which such a config cannot say, or the family has no
            writer.
    """
    shape = model.shape
    family = family_of(shape.family)
    if model.sizes != SubnetConfig.full(shape):
        raise InvalidInput("model", "only a whole model has a config.json that others read")
    if family.write_config is None:
        raise InvalidInput("family", f"folders of {shape.family} can be read, not written")
    weights = {name: p.detach().cpu() for name, p in model.named_parameters()}
    # The library's classes with a head call the body by a name, those without do not mind it.
    prefix = family.prefixes[-1]
    tensors = {prefix + t.name: _stored(t, weights) for t in family.body(shape)}
    tensors |= {t.name: _stored(t, weights) for t in family.head(shape)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = family.write_config(shape)
    if shape.has_head and shape.task != "language-modelling":
        names = label_names or [f"LABEL_{i}" for i in range(shape.num_labels)]
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
        config["label2id"] = {name: i for i, name in enumerate(names)}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n")


def _stored(tensor: StoredTensor, weights: dict[str, Tensor]) -> Tensor:
    """The file's tensor, put together from our weights.

    A part says which of its numbers become our weight: asked of the numbers' places, it tells
    where ours have to go.
    """
    flat = torch.zeros(torch.Size(tensor.size).numel())
    places = torch.arange(flat.numel()).view(tensor.size)
    for part, weight in _parts(tensor, weights):
        flat[part.take(places).reshape(-1)] = weight.reshape(-1)
    return flat.view(tensor.size)


def _parts(tensor: StoredTensor, weights: dict[str, Tensor]) -> Iterator[tuple[Part, Tensor]]:
    for part in tensor.parts:
        weight = weights[part.name]
        yield part, weight if part.row is None else weight[part.row]
