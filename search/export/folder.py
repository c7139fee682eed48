"""A network as a Hugging Face folder: the inverse of `search.model.importing`.

Where the family's stock classes can build it, they load it. Where not, config.json says in what
each layer differs (`per_layer_config`), and names classes of a file beside it, which is written
too: `modeling_snugnet.py`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from search.errors import InvalidInput
from search.families.config import CONFIG_FILE
from search.families.family import Part, StoredTensor
from search.families.networks import POOLED_TASKS, Network, write_config
from search.model.checkpoint import WEIGHTS_FILE
from search.model.transformer import ElasticTransformer

MODEL_FILE = "modeling_snugnet.py"
# Those that `modeling_snugnet.py` knows.
FITTED_FAMILIES = (
    *("bert", "roberta", "distilbert", "gpt2"),
    *("llama", "qwen2", "qwen3", "vit", "deit"),
)
AUTO_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "pair-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "image-classification": "AutoModelForImageClassification",
    "language-modelling": "AutoModelForCausalLM",
    "sentence-embedding": "AutoModel",  # of which the caller takes the mean over tokens
}


def write_model(model: ElasticTransformer, folder: Path, label_names: Sequence[str] = ()) -> None:
    """Writes config.json, model.safetensors and, where the stock classes do not do,
    modeling_snugnet.py; tokenizer and preprocessor are the caller's.

    Raises:
        InvalidInput: the family has no writer, or only one for what stock classes load; or the
            word table is one that no class of the family has, or layers share weights where the
            library keeps a cache.
    """
    if model.shape.word_rank:
        raise InvalidInput("model", "a word table of a lower rank can be exported as ONNX only")
    if model.shape.layers_per_group > 1 and model.shape.is_causal:
        raise InvalidInput(
            "model",
            "layers of a causal model that share their weights can be exported as ONNX only: in "
            "the library's cache they would have one place",
        )
    network = Network(shape=model.shape, subnet=model.sizes, weight_bits=model.weight_bits)
    config = write_config(network)
    own_classes = _own_classes(network, config)
    if own_classes:
        config |= {
            "architectures": [list(own_classes.values())[-1]],
            "auto_map": _map(own_classes),
        }
    if network.shape.has_head and network.shape.task != "language-modelling":
        names = label_names or [f"LABEL_{i}" for i in range(network.shape.num_labels)]
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
        config["label2id"] = {name: i for i, name in enumerate(names)}
    weights = {name: p.detach().cpu() for name, p in model.named_parameters()}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {tensor.name: _stored(tensor, weights) for tensor in network.tensors()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n")
    if own_classes:
        shutil.copyfile(Path(__file__).with_name(MODEL_FILE), folder / MODEL_FILE)


def _own_classes(network: Network, config: dict[str, Any]) -> dict[str, str]:
    """By the auto class that loads it, the class of `modeling_snugnet.py`; the last is the whole.

    Texts are answered by their mean token, which no stock class does.
    """
    task = network.shape.task
    needs_own = () if network.is_stock else ("AutoModel", AUTO_CLASSES[task])
    if task in POOLED_TASKS:
        needs_own = (*needs_own, AUTO_CLASSES[task])
    if needs_own and network.shape.family not in FITTED_FAMILIES:
        raise InvalidInput(
            "model",
            f"layers of a {network.shape.family} model can be written where all are alike and the "
            f"heads share out the stream's width; others for {', '.join(FITTED_FAMILIES)}",
        )
    (saved_as,) = config["architectures"]
    stem = re.sub(r"(LMHead)?Model$|For[A-Z]\w+$", "", saved_as)
    kinds = {
        "AutoModel": f"{stem}Model",
        "AutoModelForSequenceClassification": f"{stem}ForSequenceClassification",
    }
    return {auto: f"Snugnet{kinds.get(auto, saved_as)}" for auto in dict.fromkeys(needs_own)}


def _map(own_classes: dict[str, str]) -> dict[str, str]:
    module = Path(MODEL_FILE).stem
    return {auto: f"{module}.{name}" for auto, name in own_classes.items()}


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
