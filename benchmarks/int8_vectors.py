"""How near a network's vectors stay in int8: cosines of pooled last states, file against file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.delivered import Delivered
from search.compress.network import Compressed
from search.export.package import export_onnx
from search.export.running import file_answers
from search.model.transformer import ElasticTransformer
from search.space import SubnetConfig
from search.training.evaluate import predict
from search.training.rows import Rows

Deliver = Callable[[str, Compressed, str], Delivered]
MAX_FLOAT_LAYERS = 2
CHOOSING_ROWS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Variant:
    """An int8 network beside `own`, the same weights in fp32; `cosines` on the rows it was chosen
    by."""

    network: Compressed
    int8: Delivered
    own: Delivered
    cosines: dict[str, float]

    def cosines_on(self, rows: Rows) -> dict[str, float]:
        return _cosines_of(self.network, rows)


def int8_variants(
    networks: Mapping[str, Compressed], rows: Rows, deliver: Deliver
) -> list[Int8Variant]:
    """Each network in int8, all of it or but for one or two of its layers.

    Args:
        networks: by how they were made.
        rows: on which layers are chosen and cosines are told.
        deliver: writes and judges a network under a name and a key.
    """
    found = []
    some = rows.spread(CHOOSING_ROWS)
    for made, network in networks.items():
        model = network.model
        own = Compressed(model, network.subnet.with_precision("fp32"))
        own_file = deliver(f"{made}, in fp32", own, f"{_key(made)}-fp32")
        choices = islice(with_float_layers(model, some), MAX_FLOAT_LAYERS + 1)
        for count, sizes in enumerate(choices):
            kept = tuple(network.subnet.layers[place] for place in sizes.float_layers)
            subnet = replace(network.subnet.with_precision("int8"), float_layers=kept)
            name = f"{made}, int8" + (f", {count} of the layers in fp32" if count else "")
            one = Compressed(model, subnet)
            file = deliver(name, one, f"{_key(made)}-int8-{count}")
            variant = Int8Variant(
                network=one, int8=file, own=own_file, cosines=_cosines_of(one, rows)
            )
            found.append(variant)
    return found


def _cosines_of(network: Compressed, rows: Rows) -> dict[str, float]:
    floats = network.subnet.with_precision("fp32")
    return cosines(
        vectors(network.model, network.subnet, rows), vectors(network.model, floats, rows)
    )


def _key(made: str) -> str:
    return made.replace(" ", "-")


def as_encoder(model: ElasticTransformer) -> ElasticTransformer:
    """The same network without its head: its answer is the mean of the last states."""
    shape = replace(model.shape, task="sentence-embedding", num_labels=0)
    encoder = ElasticTransformer(shape, model.sizes, weight_bits=model.weight_bits)
    names = dict(encoder.named_parameters())
    encoder.load_state_dict({n: w for n, w in model.state_dict().items() if n in names})
    return encoder.eval()


def vectors(model: ElasticTransformer, subnet: SubnetConfig, rows: Rows) -> Tensor:
    """(rows, features), as the file in the subnet's precision says."""
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(as_encoder(model), subnet, Path(folder) / "encoder.onnx")
        return file_answers(path, rows)


def cosines(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """Mean and first percentile over the rows."""
    found = torch.nn.functional.cosine_similarity(ours, theirs)
    return {"mean": float(found.mean()), "p1": float(found.quantile(0.01))}


def with_float_layers(model: ElasticTransformer, rows: Rows) -> Iterator[SubnetConfig]:
    """int8; then but for one layer more each time: that which brings the vectors nearest to
    fp32's."""
    encoder = as_encoder(model)
    wanted = predict(encoder, rows)
    sizes = model.sizes.with_precision("int8")
    yield sizes
    for _ in range(sizes.num_layers):
        left = [layer for layer in sizes.layers if layer not in sizes.float_layers]
        tried = [
            replace(sizes, float_layers=tuple(sorted((*sizes.float_layers, layer))))
            for layer in left
        ]
        sizes = max(tried, key=lambda s: cosines(predict(encoder, rows, s), wanted)["mean"])
        yield sizes
