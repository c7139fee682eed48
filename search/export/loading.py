"""A folder that `write_model` wrote, read back as our own network: no transformers needed."""

from __future__ import annotations

from pathlib import Path

from search.families.config import CONFIG_FILE
from search.families.networks import read_config
from search.model.checkpoint import check_file_names, check_tensor, read_json, stored_tensors
from search.model.importing import fill_
from search.model.transformer import ElasticTransformer
from search.space import SubnetConfig


def read_subnet(folder: Path) -> tuple[ElasticTransformer, SubnetConfig]:
    """The network in evaluation mode, and its sizes; see `search.export.load_subnet`."""
    check_file_names([path.name for path in folder.iterdir()])
    network = read_config(read_json(folder / CONFIG_FILE))
    tensors, stored = list(network.tensors()), stored_tensors(folder)
    for tensor in tensors:
        check_tensor(tensor, stored)
    model = ElasticTransformer(network.shape, network.subnet, weight_bits=network.weight_bits)
    fill_(model, folder, tensors, {tensor.name: stored[tensor.name].file for tensor in tensors})
    return model.eval(), network.subnet
