"""A network between two stages, as a file: weights, masks and sizes, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from search.compress.network import Compressed
from search.model.transformer import ElasticTransformer
from search.shape import ModelShape
from search.space import SubnetConfig


def save_compressed(network: Compressed, path: Path) -> None:
    """A safetensors file of weights, masks and sizes."""
    tensors = {f"weight/{n}": p.detach() for n, p in network.model.named_parameters()}
    tensors |= {f"mask/{name}": mask for name, mask in network.masks.items()}
    if network.kept_tokens is not None:
        tensors["kept/tokens"] = network.kept_tokens
    metadata = {
        "shape": json.dumps(network.model.shape.to_dict()),
        "subnet": json.dumps(network.subnet.to_dict()),
        "dropout": str(network.model.dropout),
        "weight_bits": str(network.model.weight_bits),
        "format": network.format or "",
        "heads": json.dumps(network.heads),
        "peaks": json.dumps(dict(network.peaks)),
    }
    save_file(tensors, path, metadata=metadata)


def load_compressed(path: Path) -> Compressed:
    with safe_open(path, framework="pt") as stored:
        metadata: Mapping[str, str] = stored.metadata()
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    subnet = SubnetConfig.from_dict(json.loads(metadata["subnet"]))
    kept = tensors.pop("kept/tokens", None)
    model = ElasticTransformer(
        ModelShape.from_dict(json.loads(metadata["shape"])),
        subnet,
        dropout=float(metadata["dropout"]),
        weight_bits=int(metadata["weight_bits"]),
    )
    parts: dict[str, dict[str, Tensor]] = {"weight": {}, "mask": {}}
    for key, tensor in tensors.items():
        kind, name = key.split("/", 1)
        parts[kind][name] = tensor
    model.load_state_dict(parts["weight"])
    heads = json.loads(metadata["heads"])
    return Compressed(
        model.eval(),
        subnet,
        parts["mask"],
        metadata["format"] or None,
        kept,
        None if heads is None else tuple(tuple(layer) for layer in heads),
        json.loads(metadata["peaks"]),
    )
