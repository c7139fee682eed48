from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from search.export.graph import build_onnx
from search.export.ranges import products_of, ranges_of
from search.export.running import feed_of
from search.model.extract import to_arrays
from search.model.linears import around_linears
from search.model.transformer import Linear
from tests.search.export.networks import subnet_of
from tests.search.export.subjects import data_of


def built(name: str) -> onnx.ModelProto:
    model = subnet_of(name, "uneven and narrow")
    return build_onnx(model.shape, model.sizes.with_precision("int8"), to_arrays(model))


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "vit"])
def test_every_matrix_is_found_by_what_it_reads(name: str) -> None:
    found = products_of(built(name).graph)
    # q, k and v read the same, and so do a gate and what it gates; then there is the head.
    assert len(found) == 4 * 3 + 1
    counts = [len(nodes) for nodes in found.values()]
    assert counts.count(3) == 3
    without = products_of(built(name).graph, ["head.product"])
    assert len(without) == len(found) - 1


def test_ranges_are_those_of_what_the_network_reads() -> None:
    model = subnet_of("bert", "uneven and narrow")
    rows = data_of(model.shape, 12)
    lows: dict[str, list[torch.Tensor]] = {}

    def around(name: str, inner: Linear) -> Linear:
        def linear(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
            lows.setdefault(name, []).append(x.flatten(0, -2).amin(0))
            return inner(x, w, b)

        return linear

    batches = [rows.batch([place]) for place in range(len(rows))]
    with torch.no_grad(), around_linears(model, around):
        for batch in batches:
            model(batch)
    graph = built("bert")
    reads = {node.name: x for x, nodes in products_of(graph.graph).items() for node in nodes}
    names = {given.name for given in graph.graph.input}
    ranges = ranges_of(graph, list(set(reads.values())), (feed_of(b, names) for b in batches))
    for name in ("layers.0.attn.k", "layers.1.attn.out", "layers.2.ffn.down"):
        expected = torch.stack(lows[f"{name}.weight"]).amin(0)
        found = ranges[reads[f"{name}.product"]]
        np.testing.assert_allclose(found.low, expected.numpy(), atol=1e-5)
        assert (found.high >= found.low).all()
        assert (found.peak >= np.abs(found.low)).all()
