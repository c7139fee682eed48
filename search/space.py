"""What may be built: a model's shape, one subnet of it, and the space of all subnets."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from search.errors import InvalidInput

PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """The sizes of an imported transformer, as its config states them."""

    family: str
    num_layers: int
    embed_dim: int
    num_heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int
    max_seq_len: int
    num_token_types: int
    num_labels: int
    norm_eps: float = 1e-12

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


@dataclass(frozen=True, kw_only=True, slots=True)
class SubnetConfig:
    """One network of a space: which layers it keeps, and each kept layer's widths.

    `layers` are indices into the supernet, ascending; `num_heads` and `ffn_dim` run parallel to
    it. After reordering by importance a width of n means the n most important units, a prefix.
    """

    layers: tuple[int, ...]
    num_heads: tuple[int, ...]
    ffn_dim: tuple[int, ...]
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if not len(self.layers) == len(self.num_heads) == len(self.ffn_dim):
            raise ValueError("layers, num_heads and ffn_dim must have the same length")
        if list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"layers must ascend without repeats, got {self.layers}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, got {self.precision!r}")

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def fingerprint(self) -> str:
        """Key for caches and duplicates: equal for equal networks, on every machine."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def with_precision(self, precision: str) -> SubnetConfig:
        return replace(self, precision=precision)

    def renumbered(self) -> SubnetConfig:
        """The same network by itself, its layers numbered from 0."""
        return replace(self, layers=tuple(range(self.num_layers)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "layers": list(self.layers),
            "num_heads": list(self.num_heads),
            "ffn_dim": list(self.ffn_dim),
            "precision": self.precision,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            layers=tuple(data["layers"]),
            num_heads=tuple(data["num_heads"]),
            ffn_dim=tuple(data["ffn_dim"]),
            precision=data["precision"],
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
    """

    num_layers: tuple[int, ...]
    num_heads: tuple[int, ...]
    ffn_dim: tuple[int, ...]
    precision: tuple[str, ...]
    layer_order: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "ffn_dim"):
            values = getattr(self, name)
            if not values or list(values) != sorted(set(values)) or values[0] < 1:
                raise InvalidInput(f"space.{name}", f"must ascend from at least 1, got {values}")
        if self.num_layers[-1] > len(self.layer_order):
            raise InvalidInput("space.num_layers", f"the model has {len(self.layer_order)} layers")
        if not self.precision or not set(self.precision) <= set(PRECISIONS):
            raise InvalidInput("space.precision", f"choose from {PRECISIONS}")

    @classmethod
    def for_shape(cls, shape: ModelShape) -> Self:
        """The default space: at most four choices a gene, widths in multiples of a quarter.

        Small spaces train better: the same subnet lost 3 points of accuracy when its space grew
        from 27 to 11,232 networks (AutoDistil, arXiv 2201.12507, Table 5).
        """
        depth, heads = shape.num_layers, shape.num_heads
        return cls(
            num_layers=tuple(sorted({depth, -(-2 * depth // 3), -(-depth // 2), -(-depth // 3)})),
            num_heads=tuple(sorted({-(-heads * q // 4) for q in (1, 2, 3, 4)})),
            ffn_dim=tuple(
                sorted(
                    {max(8, shape.ffn_dim * q // 4 // 8 * 8) for q in (1, 2, 3)} | {shape.ffn_dim}
                )
            ),
            precision=PRECISIONS,
            layer_order=default_layer_order(depth),
        )

    def with_choices(self, own: Mapping[str, Sequence[Any]]) -> SearchSpace:
        """The same space with a user's own choices for some genes.

        Raises:
            InvalidInput: naming the gene whose choices do not fit.
        """
        return SearchSpace.from_dict(self.to_dict() | {gene: own[gene] for gene in own})

    @property
    def gene_choices(self) -> dict[str, tuple[Any, ...]]:
        """Name of each gene and its choices, in a fixed order."""
        genes: dict[str, tuple[Any, ...]] = {
            "num_layers": self.num_layers,
            "precision": self.precision,
        }
        for layer in range(len(self.layer_order)):
            genes[f"num_heads_{layer}"] = self.num_heads
            genes[f"ffn_dim_{layer}"] = self.ffn_dim
        return genes

    def decode(self, genotype: Mapping[str, Any]) -> SubnetConfig:
        layers = tuple(sorted(self.layer_order[: genotype["num_layers"]]))
        return SubnetConfig(
            layers=layers,
            num_heads=tuple(genotype[f"num_heads_{layer}"] for layer in layers),
            ffn_dim=tuple(genotype[f"ffn_dim_{layer}"] for layer in layers),
            precision=genotype["precision"],
        )

    def sample(self, rng: random.Random) -> SubnetConfig:
        return self.decode({gene: rng.choice(c) for gene, c in self.gene_choices.items()})

    def uniform(self) -> Iterator[SubnetConfig]:
        """Every subnet whose layers are all alike: the baseline of uniform scaling."""
        for precision in self.precision:
            for depth in self.num_layers:
                layers = tuple(sorted(self.layer_order[:depth]))
                for heads in self.num_heads:
                    for ffn in self.ffn_dim:
                        yield SubnetConfig(
                            layers=layers,
                            num_heads=(heads,) * depth,
                            ffn_dim=(ffn,) * depth,
                            precision=precision,
                        )

    @property
    def smallest(self) -> SubnetConfig:
        return self._extreme(0, self.precision[-1])

    @property
    def largest(self) -> SubnetConfig:
        return self._extreme(-1, self.precision[0])

    def _extreme(self, index: int, precision: str) -> SubnetConfig:
        depth = self.num_layers[index]
        return SubnetConfig(
            layers=tuple(sorted(self.layer_order[:depth])),
            num_heads=(self.num_heads[index],) * depth,
            ffn_dim=(self.ffn_dim[index],) * depth,
            precision=precision,
        )

    def contains(self, subnet: SubnetConfig) -> bool:
        return (
            subnet.num_layers in self.num_layers
            and subnet.layers == tuple(sorted(self.layer_order[: subnet.num_layers]))
            and set(subnet.num_heads) <= set(self.num_heads)
            and set(subnet.ffn_dim) <= set(self.ffn_dim)
            and subnet.precision in self.precision
        )

    def __len__(self) -> int:
        """Number of distinct networks."""
        widths: int = len(self.num_heads) * len(self.ffn_dim)
        networks: int = sum(widths**depth for depth in self.num_layers)
        return len(self.precision) * networks

    def with_layer_order(self, layer_order: tuple[int, ...]) -> SearchSpace:
        return self.with_choices({"layer_order": layer_order})

    def to_dict(self) -> dict[str, Any]:
        return {name: list(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{name: tuple(data[name]) for name in cls.__slots__})


def default_layer_order(num_layers: int) -> tuple[int, ...]:
    """Keep the last and the first layer, then drop alternate middle layers (before measuring)."""
    middle = list(range(1, num_layers - 1))
    ends = [num_layers - 1, 0] if num_layers > 1 else [0]
    return tuple(ends + middle[1::2] + middle[0::2])
