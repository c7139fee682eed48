"""A network of a family as config.json and tensors say it, its layers alike or not. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from search.errors import InvalidInput
from search.families.config import CONFIG_FILE, PER_LAYER_KEY, Config
from search.families.family import Family, StoredTensor, linear, same, transposed
from search.families.registry import family_of, family_of_config
from search.shape import ATTENTIONS, RARE, TASKS, ModelShape
from search.space import PRECISIONS, SubnetConfig

POOLED_TASKS = ("text-classification", "pair-classification")
OWN_KEY = "snugnet"
MAX_LABELS = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A network by itself, its layers numbered from 0.

    Attributes:
        shape: has at least the heads and neurons of every layer.
        weight_bits: of its matrices where they are int8.
    """

    shape: ModelShape
    subnet: SubnetConfig
    weight_bits: int

    @property
    def family(self) -> Family:
        return family_of(self.shape.family)

    @property
    def layer_shapes(self) -> tuple[ModelShape, ...]:
        """For each layer, the model whose layers are all like it."""
        return tuple(
            replace(
                self.shape,
                num_layers=self.subnet.num_layers,
                embed_dim=self.subnet.width_in(self.shape),
                num_heads=num_heads,
                ffn_dim=ffn_dim,
            )
            for num_heads, ffn_dim in zip(self.subnet.num_heads, self.subnet.ffn_dim, strict=True)
        )

    @property
    def is_stock(self) -> bool:
        """Whether the family's own classes can build it, its head aside."""
        if rare_of(self.shape):
            return False
        first, *others = self.layer_shapes
        if self.family.states_head_dim:
            # A Llama's config insists on it, though it uses it for nothing.
            has_fitting_heads = first.embed_dim % first.num_heads == 0
        else:
            has_fitting_heads = first.attention_dim == first.embed_dim
        return has_fitting_heads and all(other == first for other in others)

    def tensors(self) -> Iterator[StoredTensor]:
        """Of its file; the body's names have the prefix by which a class with a head calls it."""
        prefix = self.family.prefixes[-1]
        for tensor in self._body():
            yield replace(tensor, name=prefix + tensor.name)
        first = self.layer_shapes[0]
        if self.shape.task in POOLED_TASKS:
            yield from linear("classifier", "head", first.num_labels, first.embed_dim)
        else:
            yield from self.family.head(first)

    def _body(self) -> Iterator[StoredTensor]:
        """Each layer's tensors from the model whose layers are all like it; those of layers that
        share them once."""
        own = self.layer_shapes[:: self.shape.layers_per_group]
        shapes = [replace(shape, num_layers=len(own)) for shape in own]
        bodies = {shape: {t.name: t for t in self.family.body(shape)} for shape in set(shapes)}
        for name, tensor in bodies[shapes[0]].items():
            layer = re.match(r"layers\.(\d+)\.", tensor.parts[0].name)
            if layer is None:
                yield tensor
            else:
                yield from in_factors(bodies[shapes[int(layer[1])]][name], self.shape.ffn_rank)


def rare_of(shape: ModelShape) -> dict[str, Any]:
    """What few networks have, and no class of the library: by its name in `ModelShape`."""
    data = shape.to_dict()
    return {name: data[name] for name in RARE if name in data}


def in_factors(tensor: StoredTensor, rank: int) -> Iterator[StoredTensor]:
    """A tensor of a layer; of a feed-forward matrix, the two that it is the product of.

    `NAME.low` is what x goes through first. The other keeps the name, so that classes which expect
    the whole matrix there refuse its size.
    """
    (part, *_), stem = tensor.parts, tensor.name.rpartition(".")[0]
    found = re.fullmatch(r"(layers\.\d+\.ffn\.(?:gate|up|down))\.weight", part.name)
    if not rank or found is None:
        yield tensor
        return
    # `low` is stored as (rank, in), however the family stores its matrices.
    is_turned = part.take is transposed
    rows, columns = tensor.size[::-1] if is_turned else tensor.size
    yield same(f"{stem}.low.weight", f"{found[1]}_low.weight", rank, columns)
    yield replace(tensor, size=(rank, rows) if is_turned else (rows, rank))


def write_config(network: Network) -> dict[str, Any]:
    """config.json of it, without labels.

    Raises:
        InvalidInput: the family has no writer, or the library's config refuses the sizes.
    """
    write = network.family.write_config
    if write is None:
        raise InvalidInput("family", f"folders of {network.shape.family} can be read, not written")
    alike = _whole(network)
    whole = write(alike)
    if network.shape.layers_per_group > 1 or network.shape.attention == "linear":
        # The tensors' sizes do not tell the library's own classes that the network is another
        # than they would build. Layers that all differ from the rest make them refuse the config.
        whole = write(replace(alike, ffn_dim=alike.ffn_dim + 1))
    layers = [write(shape) for shape in network.layer_shapes]
    own = [{k: v for k, v in layer.items() if v != whole[k]} for layer in layers]
    config = whole | {OWN_KEY: _own(network)}
    if not network.is_stock or alike.attention_dim != alike.embed_dim:
        config["head_dim"] = network.shape.head_dim
    if any(own):
        config[PER_LAYER_KEY] = {str(i): sizes for i, sizes in enumerate(own) if sizes}
        # LlamaConfig checks the heads of the whole, so it has to be allowed to ask for them.
        if network.shape.family == "llama":
            config["allow_global_per_layer_attribute_access"] = True
    return config


def _whole(network: Network) -> ModelShape:
    """What the config says of the whole model: the first layer whose heads divide the stream."""
    shapes = network.layer_shapes
    fewest = replace(shapes[0], num_heads=shapes[0].queries_per_group)
    for shape in (*shapes, fewest):
        if shape.embed_dim % shape.num_heads == 0:
            return shape
    raise InvalidInput(
        "model",
        f"{fewest.num_heads} query heads share a key-value head: a folder can be written for a "
        f"stream whose width is a multiple of that, not {fewest.embed_dim}",
    )


def _own(network: Network) -> dict[str, Any]:
    """What no other reader asks for."""
    subnet = network.subnet
    own: dict[str, Any] = {"task": network.shape.task, "precision": subnet.precision}
    own |= rare_of(network.shape)
    if subnet.precision == "int8":
        own |= {"weight_bits": network.weight_bits, "float_layers": list(subnet.float_layers)}
    return own


def read_config(data: Mapping[str, Any]) -> Network:
    """The inverse of `write_config`.

    Raises:
        InvalidInput: with `config.json` as the field.
    """
    config = Config(data)
    family, own = family_of_config(config.model_type), config.part(OWN_KEY)
    task = own.choice("task", TASKS)
    if task not in family.tasks:
        raise InvalidInput(CONFIG_FILE, f"a {family.name} model does not do {task}")
    first = family.read_shape(config, task)
    shapes = [family.read_shape(layer, task) for layer in config.layers(first.num_layers)]
    shape = _largest(shapes)
    if shape.task not in ("language-modelling", "sentence-embedding"):
        shape = replace(shape, num_labels=config.num_labels(MAX_LABELS))
    shape = replace(
        shape,
        ffn_rank=own.size("ffn_rank") if own.has("ffn_rank") else 0,
        layers_per_group=own.size("layers_per_group", default=1, largest=len(shapes)),
        attention=own.choice("attention", ATTENTIONS) if own.has("attention") else "softmax",
    )
    precision = own.choice("precision", PRECISIONS)
    is_int8 = precision == "int8"
    return Network(
        shape=shape,
        subnet=SubnetConfig(
            layers=tuple(range(len(shapes))),
            num_heads=tuple(layer.num_heads for layer in shapes),
            ffn_dim=tuple(layer.ffn_dim for layer in shapes),
            precision=precision,
            float_layers=own.places("float_layers", len(shapes)) if is_int8 else (),
        ),
        weight_bits=own.size("weight_bits", default=8, largest=8),
    )


def _largest(shapes: list[ModelShape]) -> ModelShape:
    """With room for every layer."""
    num_heads, ffn_dim = max(s.num_heads for s in shapes), max(s.ffn_dim for s in shapes)
    largest = [replace(shape, num_heads=num_heads, ffn_dim=ffn_dim) for shape in shapes]
    if any(shape != largest[0] for shape in largest):
        raise InvalidInput(
            CONFIG_FILE, f"{PER_LAYER_KEY} may set the heads and neurons of a layer, nothing else"
        )
    return largest[0]
