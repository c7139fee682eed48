"""What may be built of a model: one subnet of it, and the space of all subnets."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from search.errors import InvalidInput
from search.shape import ModelShape

PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True, kw_only=True, slots=True)
class SubnetConfig:
    """One network of a space: which layers it keeps, and each kept layer's widths.

    `layers` are indices into the supernet, ascending; `num_heads` and `ffn_dim` run parallel to
    it. After reordering by importance a width of n means the n most important units, a prefix.

    Attributes:
        num_heads: query heads; key-value heads follow by the model's `queries_per_group`.
        embed_dim: features of the stream between layers; None keeps the model's.
        float_layers: kept layers that stay in fp32 though `precision` is int8.
    """

    layers: tuple[int, ...]
    num_heads: tuple[int, ...]
    ffn_dim: tuple[int, ...]
    precision: str = "fp32"
    embed_dim: int | None = None
    float_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.layers) == len(self.num_heads) == len(self.ffn_dim):
            raise ValueError("layers, num_heads and ffn_dim must have the same length")
        if list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"layers must ascend without repeats, got {self.layers}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, got {self.precision!r}")
        if not set(self.float_layers) <= set(self.layers):
            raise ValueError(f"float_layers must be kept layers, got {self.float_layers}")
        if self.float_layers and self.precision == "fp32":
            raise ValueError("float_layers are for a network of precision int8")

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def fingerprint(self) -> str:
        """Key for caches and duplicates: equal for equal networks, on every machine."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def width_in(self, shape: ModelShape) -> int:
        """Features of the stream between layers."""
        return self.embed_dim or shape.embed_dim

    def precision_of(self, layer: int) -> str:
        """Of the kept layer with this index."""
        return "fp32" if layer in self.float_layers else self.precision

    def with_precision(self, precision: str) -> SubnetConfig:
        """All of it in `precision`."""
        return replace(self, precision=precision, float_layers=())

    def renumbered(self) -> SubnetConfig:
        """The same network by itself, its layers numbered from 0."""
        places = {layer: place for place, layer in enumerate(self.layers)}
        return replace(
            self,
            layers=tuple(range(self.num_layers)),
            float_layers=tuple(places[layer] for layer in self.float_layers),
        )

    def keeping(self, layers: Sequence[int]) -> SubnetConfig:
        """The same network with some of its layers only."""
        places = [self.layers.index(layer) for layer in layers]
        return replace(
            self,
            layers=tuple(layers),
            num_heads=tuple(self.num_heads[place] for place in places),
            ffn_dim=tuple(self.ffn_dim[place] for place in places),
            float_layers=tuple(layer for layer in self.float_layers if layer in layers),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what is as the model has it is left out."""
        data: dict[str, Any] = {
            "layers": list(self.layers),
            "num_heads": list(self.num_heads),
            "ffn_dim": list(self.ffn_dim),
            "precision": self.precision,
        }
        if self.embed_dim is not None:
            data["embed_dim"] = self.embed_dim
        if self.float_layers:
            data["float_layers"] = list(self.float_layers)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            layers=tuple(data["layers"]),
            num_heads=tuple(data["num_heads"]),
            ffn_dim=tuple(data["ffn_dim"]),
            precision=data["precision"],
            embed_dim=data.get("embed_dim"),
            float_layers=tuple(data.get("float_layers", ())),
        )

    @classmethod
    def full(cls, shape: ModelShape, precision: str = "fp32") -> Self:
        """The unsearched model."""
        return cls(
            layers=tuple(range(shape.num_layers)),
            num_heads=(shape.num_heads,) * shape.num_layers,
            ffn_dim=(shape.ffn_dim,) * shape.num_layers,
            precision=precision,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpace:
    """The choices of every gene. A genotype names one choice for each; see `gene_choices`.

    `layer_order` lists the layers from the most to the least important: a subnet of n layers
    keeps its first n. Width genes belong to a layer of the supernet, so that a gene means the
    same thing at every depth; those of dropped layers have no effect.

    Attributes:
        embed_dim: of the stream between layers; empty where it stays as the model has it.
        precision_groups: 1 gives a network one precision; more cut the supernet's layers into as
            many runs of neighbours, each with a precision of its own.
    """

    num_layers: tuple[int, ...]
    num_heads: tuple[int, ...]
    ffn_dim: tuple[int, ...]
    precision: tuple[str, ...]
    layer_order: tuple[int, ...]
    embed_dim: tuple[int, ...] = ()
    precision_groups: int = 1

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "ffn_dim", "embed_dim"):
            values = getattr(self, name)
            if not values and name == "embed_dim":
                continue
            if not values or list(values) != sorted(set(values)) or values[0] < 1:
                raise InvalidInput(f"space.{name}", f"must ascend from at least 1, got {values}")
        if self.num_layers[-1] > len(self.layer_order):
            raise InvalidInput(
                "space.num_layers",
                f"the model has {len(self.layer_order)}, got {self.num_layers[-1]}",
            )
        if not self.precision or not set(self.precision) <= set(PRECISIONS):
            raise InvalidInput("space.precision", f"choose from {PRECISIONS}")
        if not 1 <= self.precision_groups <= len(self.layer_order):
            raise InvalidInput(
                "space.precision_groups", f"must be from 1 to {len(self.layer_order)} layers"
            )

    @classmethod
    def for_shape(cls, shape: ModelShape, preset: str = "medium") -> Self:
        """A space of the model's own sizes: at most four choices a gene.

        Small spaces train better: the same subnet lost 3 points of accuracy when its space grew
        from 27 to 11,232 networks (AutoDistil, arXiv 2201.12507, Table 5).

        Raises:
            InvalidInput: there is no such preset.
        """
        if preset not in PRESETS:
            raise InvalidInput("space.preset", f"{preset!r} is not one of {tuple(PRESETS)}")
        choices = PRESETS[preset]
        depth = shape.num_layers
        searches_width = choices.embed_eighths != (8,) and shape.task != "sentence-embedding"
        return cls(
            num_layers=tuple(sorted({-(-depth * part // 12) for part in choices.depth_twelfths})),
            num_heads=tuple(
                sorted(
                    {
                        -(-shape.num_kv_heads * part // 8) * shape.queries_per_group
                        for part in choices.head_eighths
                    }
                )
            ),
            ffn_dim=_eighths(shape.ffn_dim, choices.ffn_eighths),
            precision=PRECISIONS,
            layer_order=default_layer_order(depth),
            embed_dim=(_eighths(shape.embed_dim, choices.embed_eighths) if searches_width else ()),
            precision_groups=min(choices.precision_groups, depth),
        )

    def with_choices(self, own: Mapping[str, Any]) -> SearchSpace:
        """The same space with a user's own choices for some genes.

        Raises:
            InvalidInput: naming the gene whose choices do not fit.
        """
        return SearchSpace.from_dict(self.to_dict() | dict(own))

    def check_fits(self, shape: ModelShape) -> None:
        """Raises: InvalidInput naming the gene with a choice that the model cannot have."""
        for gene, highest in (
            ("num_layers", shape.num_layers),
            ("num_heads", shape.num_heads),
            ("ffn_dim", shape.ffn_dim),
            ("embed_dim", shape.embed_dim),
        ):
            values = getattr(self, gene)
            if values and values[-1] > highest:
                raise InvalidInput(f"space.{gene}", f"the model has {highest}, got {values[-1]}")
        group = shape.queries_per_group
        if any(heads % group for heads in self.num_heads):
            raise InvalidInput(
                "space.num_heads",
                f"{group} query heads share a key-value head: choose multiples of {group}",
            )
        if self.embed_dim and shape.task == "sentence-embedding":
            raise InvalidInput("space.embed_dim", "an embedding keeps the width of its vectors")

    @property
    def gene_choices(self) -> dict[str, tuple[Any, ...]]:
        """Name of each gene and its choices, in a fixed order."""
        genes: dict[str, tuple[Any, ...]] = {"num_layers": self.num_layers}
        if self.embed_dim:
            genes["embed_dim"] = self.embed_dim
        genes |= dict.fromkeys(self._precision_genes, self.precision)
        for layer in range(len(self.layer_order)):
            genes[f"num_heads_{layer}"] = self.num_heads
            genes[f"ffn_dim_{layer}"] = self.ffn_dim
        return genes

    def decode(self, genotype: Mapping[str, Any]) -> SubnetConfig:
        layers = self.kept_layers(genotype["num_layers"])
        precision, float_layers = self._decode_precision(
            layers, [genotype[gene] for gene in self._precision_genes]
        )
        return SubnetConfig(
            layers=layers,
            num_heads=tuple(genotype[f"num_heads_{layer}"] for layer in layers),
            ffn_dim=tuple(genotype[f"ffn_dim_{layer}"] for layer in layers),
            precision=precision,
            embed_dim=genotype["embed_dim"] if self.embed_dim else None,
            float_layers=float_layers,
        )

    def kept_layers(self, depth: int) -> tuple[int, ...]:
        """The layers of a network of `depth` layers."""
        return tuple(sorted(self.layer_order[:depth]))

    def sample(self, rng: random.Random) -> SubnetConfig:
        return self.decode({gene: rng.choice(c) for gene, c in self.gene_choices.items()})

    def uniform(self) -> Iterator[SubnetConfig]:
        """Every subnet whose layers are all alike: the baseline of uniform scaling."""
        for precision, depth, width, heads, ffn in itertools.product(
            self.precision,
            self.num_layers,
            self.embed_dim or (None,),
            self.num_heads,
            self.ffn_dim,
        ):
            yield self._alike(depth, width, heads, ffn, precision)

    @property
    def smallest(self) -> SubnetConfig:
        return self._extreme(0, self.precision[-1])

    @property
    def largest(self) -> SubnetConfig:
        return self._extreme(-1, self.precision[0])

    def contains(self, subnet: SubnetConfig) -> bool:
        return (
            subnet.num_layers in self.num_layers
            and subnet.layers == self.kept_layers(subnet.num_layers)
            and set(subnet.num_heads) <= set(self.num_heads)
            and set(subnet.ffn_dim) <= set(self.ffn_dim)
            and subnet.embed_dim in (self.embed_dim or (None,))
            and self._has_precision(subnet)
        )

    @property
    def num_networks(self) -> int:
        """Number of distinct networks: more than `len` can tell, for some spaces."""
        widths: int = len(self.num_heads) * len(self.ffn_dim)
        networks: int = sum(
            widths**depth * len(self.precision) ** len(self._groups_of(self.kept_layers(depth)))
            for depth in self.num_layers
        )
        return max(1, len(self.embed_dim)) * networks

    def with_layer_order(self, layer_order: tuple[int, ...]) -> SearchSpace:
        return self.with_choices({"layer_order": layer_order})

    def to_dict(self) -> dict[str, Any]:
        data = {name: getattr(self, name) for name in self.__slots__}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
        }
        return cls(**values)

    @property
    def _precision_genes(self) -> list[str]:
        if self.precision_groups == 1:
            return ["precision"]
        return [f"precision_{group}" for group in range(self.precision_groups)]

    def _group_of(self, layer: int) -> int:
        return layer * self.precision_groups // len(self.layer_order)

    def _groups_of(self, layers: Sequence[int]) -> set[int]:
        return {self._group_of(layer) for layer in layers}

    def _decode_precision(
        self, layers: Sequence[int], by_group: Sequence[str]
    ) -> tuple[str, tuple[int, ...]]:
        """Precision of the network, and its layers that stay in fp32 nevertheless."""
        floats = tuple(layer for layer in layers if by_group[self._group_of(layer)] == "fp32")
        if len(floats) == len(layers):
            return "fp32", ()
        return "int8", floats

    def _has_precision(self, subnet: SubnetConfig) -> bool:
        by_group = {self._group_of(la): subnet.precision_of(la) for la in subnet.layers}
        is_grouped = all(
            subnet.precision_of(la) == by_group[self._group_of(la)] for la in subnet.layers
        )
        return is_grouped and set(by_group.values()) <= set(self.precision)

    def _extreme(self, index: int, precision: str) -> SubnetConfig:
        width = self.embed_dim[index] if self.embed_dim else None
        heads, ffn = self.num_heads[index], self.ffn_dim[index]
        return self._alike(self.num_layers[index], width, heads, ffn, precision)

    def _alike(
        self, depth: int, width: int | None, num_heads: int, ffn_dim: int, precision: str
    ) -> SubnetConfig:
        return SubnetConfig(
            layers=self.kept_layers(depth),
            num_heads=(num_heads,) * depth,
            ffn_dim=(ffn_dim,) * depth,
            precision=precision,
            embed_dim=width,
        )


@dataclass(frozen=True, slots=True)
class _Preset:
    """Parts of a model's own sizes among which a space chooses."""

    depth_twelfths: tuple[int, ...]
    head_eighths: tuple[int, ...]
    ffn_eighths: tuple[int, ...]
    embed_eighths: tuple[int, ...] = (8,)
    precision_groups: int = 1


# Widths halve from choice to choice: at an eighth of the latency four thin layers are better than
# the two that quarters of the widths leave room for (81.1 against 77.5 %, docs/lab-notes.md).
_HALVED = (1, 2, 4, 8)
PRESETS: Mapping[str, _Preset] = {
    "small": _Preset((4, 8, 12), (4, 8), (2, 4, 8)),
    "medium": _Preset((4, 6, 8, 12), _HALVED, _HALVED),
    "wide": _Preset((4, 6, 8, 12), _HALVED, _HALVED, (4, 6, 8), precision_groups=2),
}
# What the kernels of every runtime take without padding.
WIDTH_MULTIPLE = 8


def _eighths(size: int, eighths: Sequence[int]) -> tuple[int, ...]:
    """Parts of `size` in multiples of `WIDTH_MULTIPLE`; the whole as it is."""
    parts = {
        max(WIDTH_MULTIPLE, size * part // 8 // WIDTH_MULTIPLE * WIDTH_MULTIPLE)
        if part < 8
        else size
        for part in eighths
    }
    return tuple(sorted(part for part in parts if part <= size))


def default_layer_order(num_layers: int) -> tuple[int, ...]:
    """Keep the last and the first layer, then drop alternate middle layers (before measuring)."""
    middle = list(range(1, num_layers - 1))
    ends = [num_layers - 1, 0] if num_layers > 1 else [0]
    return tuple(ends + middle[1::2] + middle[0::2])
